# mypy: disable-error-code="import-not-found, misc"
"""aiohttp on uvloop."""

import asyncio
from contextlib import suppress
from typing import Any

import uvloop
from aiohttp import WSMsgType, web

from benchmarks.peers.ending import prepare, say_port

members: set[Any] = set()


async def echo(request: Any) -> Any:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    async for message in ws:
        if message.type == WSMsgType.TEXT:
            await ws.send_str(message.data)
    return ws


async def fan(request: Any) -> Any:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    members.add(ws)
    try:
        async for message in ws:
            if message.type == WSMsgType.TEXT:
                for member in tuple(members):
                    with suppress(ConnectionError):
                        await member.send_str(message.data)
    finally:
        members.discard(ws)
    return ws


async def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/echo", echo), web.get("/fan", fan)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    say_port(runner.addresses[0][1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    prepare()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
