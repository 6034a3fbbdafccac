"""The sum of digits: trained on up to nine of them, asked for the sum of up to 95."""
