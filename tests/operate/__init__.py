"""What operators see: figures, reports, health."""
