"""From a request to an open ``WebSocket``."""
