"""The figures of a benchmark, as in the paper, for any fitted XNN."""
