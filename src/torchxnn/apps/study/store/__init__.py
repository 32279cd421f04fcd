"""What participants answered: every call that returns has reached the disk.

Times such as `now` are seconds since 1970.
"""
