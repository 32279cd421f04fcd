"""The local page on which people name x-features (`xnn name`)."""
