"""Commands of `xnn` that do not fit into `cli`, one module each."""
