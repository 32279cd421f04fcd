"""The commands of `xnn`, one module each."""
