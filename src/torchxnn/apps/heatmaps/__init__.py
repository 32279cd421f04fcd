"""Heatmaps of a whole data set, drawn once and kept in chunk files."""
