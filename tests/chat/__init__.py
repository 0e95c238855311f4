"""The ready-made chat: what its clients may ask, over processes, and its polls."""
