# mypy: disable-error-code="import-not-found, misc, no-any-unimported"
"""Tornado, with its C mask."""

import asyncio
from contextlib import suppress

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

from benchmarks.peers.ending import prepare, say_port

members: set["Fan"] = set()


class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class Fan(tornado.websocket.WebSocketHandler):
    def open(self) -> None:
        members.add(self)

    def on_close(self) -> None:
        members.discard(self)

    def on_message(self, message: str | bytes) -> None:
        for member in members:
            with suppress(tornado.websocket.WebSocketClosedError):
                member.write_message(message)


async def main() -> None:
    app = tornado.web.Application(
        [("/echo", Echo), ("/fan", Fan)],
        websocket_max_message_size=32 << 20,
        log_function=lambda handler: None,
    )
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1", backlog=4096)
    tornado.httpserver.HTTPServer(app).add_sockets(sockets)
    say_port(sockets[0].getsockname()[1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    prepare()
    asyncio.run(main())
