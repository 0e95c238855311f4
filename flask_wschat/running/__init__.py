"""What ``chat.run`` adds to a server: patching, reloading, lines of its requests."""
