"""What healthy clients notice of attacks: ``python -m benchmarks.attacks``."""
