"""Several server processes, what they share, and clients that miss nothing."""
