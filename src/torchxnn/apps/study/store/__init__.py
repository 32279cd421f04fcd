"""What participants answered: every call that returns has reached the disk."""
