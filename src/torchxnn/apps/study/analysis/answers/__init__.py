"""The analysis of forward simulation and of the odd cue: answers that are right or wrong."""
