"""Whether the demo's port can be used; the standard library only."""

import socket


def complaint(text: str) -> str:
    """Return why the port ``text`` cannot be served on, or an empty string."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        return f"PORT={text} is not a port number (1 to 65535)."
    with socket.socket() as probe:
        # As the server does: a port whose last connections only linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
            # Binding beside a listener on all addresses works; listening does not.
            probe.listen(1)
        except PermissionError:
            return f"Port {text} needs root. Another one: make demo PORT=8000"
        except OSError:
            return f"Port {text} is taken. Another one: make demo PORT={int(text) + 1}"
    return ""
