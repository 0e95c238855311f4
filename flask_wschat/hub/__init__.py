"""The connections of this process, and who is where."""
