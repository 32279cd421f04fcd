"""Data sets: each yields frozen samples; a new one is one file and one line in `DATASETS`."""
