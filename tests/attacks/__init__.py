"""What hostile clients do, from outside and by name."""
