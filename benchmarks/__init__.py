"""Benchmarks: our numbers beside another server's, measured in the same run."""
