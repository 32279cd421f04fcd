"""Numbers, words, names and drawings of one explanation."""
