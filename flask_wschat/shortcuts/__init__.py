"""What may be deleted: the same answers, for less work."""
