"""Who hands over a socket: the handlers, and what servers offer in the environ."""
