"""Eq. 5, one fit, its restarts, and many classes."""
