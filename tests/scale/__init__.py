"""What must hold at scale, and whatever fails: programs with seeds."""
