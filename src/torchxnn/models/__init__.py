"""Other people's networks: by name, their weights and layers, and what goes in and comes out."""
