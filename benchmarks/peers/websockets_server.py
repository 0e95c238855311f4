# mypy: disable-error-code="import-not-found, misc"
"""websockets, its asyncio server on uvloop; `broadcast` as its documentation says."""

import asyncio
from typing import Any

import uvloop
from websockets.asyncio.server import broadcast, serve

from benchmarks.peers.ending import prepare, say_port

members: set[Any] = set()


async def talk(ws: Any) -> None:
    if ws.request.path != "/fan":
        async for message in ws:
            await ws.send(message)
        return
    members.add(ws)
    try:
        async for message in ws:
            broadcast(members, message)
    finally:
        members.discard(ws)


async def main() -> None:
    async with serve(
        talk, "127.0.0.1", 0, compression=None, max_size=32 << 20, backlog=4096
    ) as server:
        say_port(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


if __name__ == "__main__":
    prepare()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
