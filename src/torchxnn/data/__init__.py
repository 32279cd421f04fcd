"""Data sets, what a layer gives for them, and who is a positive."""
