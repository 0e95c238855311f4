"""Whether the demo's port can be used; the standard library only."""

import errno
import socket


def complaint(text: str, host: str = "127.0.0.1") -> str:
    """Return why nobody can serve on that port of ``host``, or an empty string."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        return f"PORT={text} is not a port number (1 to 65535)."
    try:
        found = socket.getaddrinfo(host, int(text), type=socket.SOCK_STREAM)
    except OSError:
        return f"HOST={host} is no address. All of this machine: HOST=0.0.0.0"
    family, *_, address = found[0]
    with socket.socket(family) as probe:
        # As the server does: a port whose last connections only linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            # Binding beside a listener on all addresses works; listening does not.
            probe.listen(1)
        except PermissionError:
            return f"Port {text} needs root. Another one: make demo PORT=8000"
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return f"HOST={host} is no address of this machine."
            return f"Port {text} is taken. Another one: make demo PORT={int(text) + 1}"
    return ""
