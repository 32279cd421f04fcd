"""`xnn check`: conservation layer by layer, and the randomization cascade, for one model."""
