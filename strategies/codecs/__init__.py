"""From soft labels to bytes and back: row codecs, their names, bit packing, encoding. Numpy is all that they need."""
