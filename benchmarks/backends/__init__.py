"""What the backends cost: see ``python -m benchmarks.backends``."""
