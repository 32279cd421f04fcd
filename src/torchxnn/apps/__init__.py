"""What people do with XNNs, one folder per job; the command line is above them."""
