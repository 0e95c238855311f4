# mypy: disable-error-code="import-not-found, misc"
"""picows: callbacks on uvloop, frames as views of its read buffer."""

import asyncio
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from benchmarks.peers.ending import prepare, say_port

members: set[Any] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_memoryview())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.message(transport, frame)

    def message(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Fan(Echo):
    def on_ws_connected(self, transport: WSTransport) -> None:
        members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        members.discard(transport)

    def message(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        for member in members:
            member.send(frame.msg_type, payload)


def listener(request: Any) -> WSListener:
    return Fan() if request.path == b"/fan" else Echo()


async def main() -> None:
    server = await ws_create_server(
        listener, "127.0.0.1", 0, max_frame_size=32 << 20, backlog=4096
    )
    say_port(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    prepare()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
