"""The ready-made chat."""
