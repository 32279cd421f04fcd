"""Explanations as figures, pages and notebook fragments."""
