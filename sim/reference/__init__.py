"""Reference pages that are written from what is there: the schema, the commands and the docstrings."""
