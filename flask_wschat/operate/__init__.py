"""What operators see, and what they can do."""
