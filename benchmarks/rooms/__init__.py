"""Large rooms, slow storages and faults: see ``python -m benchmarks.rooms``."""
