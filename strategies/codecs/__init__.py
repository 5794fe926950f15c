"""From soft labels to bytes and back: row codecs, the table of their names, bit packing, encoding. Numpy only."""
