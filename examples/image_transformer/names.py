"""Names of the command line, without imports."""

# Those that can be prepared from idx files.
IDX = ("mnist", "fashion_mnist")
# Networks to compare with, and what a table calls them.
REFERENCES = {
    "convolution": "causal convolution",
    "linear-attention": "causal linear attention",
}
