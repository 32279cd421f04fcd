"""What the network says where an x-feature is taken away."""
