"""MkDocs hook: a tutorial is a plain script; its comments become text, the rest code."""
