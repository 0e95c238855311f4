"""The package under real servers, each in a process of its own."""
