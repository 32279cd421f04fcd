"""What people call the x-features: judgements, agreement, files, and names carried to a refit."""
