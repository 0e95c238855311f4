"""A small blocking WebSocket client, on the codec and a plain socket.

    with connect("wss://example.org/chat", headers={"Cookie": "..."}) as ws:
        ws.send("hello")
        for message in ws:
            print(message)

One thread, nothing in the background: pings are answered, and the end is noticed,
while a call is under way. What these files know is bytes, time and addresses; frames
and the handshake are the codec's. Proxies are not spoken to.
"""

from .client import Client
from .dial import connect, open_over

__all__ = ["Client", "connect", "open_over"]
