"""Twenty peers are swallowed by the network: when are they gone, and who notices?

    python -m tests.scale.blackholes [--only run flask] [--peers 20]

For each way to serve: peers of all kinds are connected and answer pings, then not one
packet from them or to them arrives any more, nor is anybody told so. They must be gone
after WSCHAT_PING_INTERVAL + WSCHAT_PING_TIMEOUT, and all that was held for them;
meanwhile a healthy load is served as before. It runs in a network namespace of its own,
with a loopback of its own, that ends with it: for root, or for whoever may have a
namespace of users.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Load, two_cores
from flask_wschat.codec import Opcode, encode_frame
from tests.servers.serving import (
    KINDS,
    THREADS,
    RawClient,
    Server,
    eventually,
    with_settings,
)
from tests.support.certificate import make_pair

INSIDE = "WSCHAT_BLACKHOLES"
"""In the environment of the process that has the namespace."""
SWALLOWED = "127.0.3"
"""The network of those who are."""
INTERVAL, TIMEOUT = 2.0, 1.5
SLACK = 1.0
"""Seconds for a busy machine."""
PATHS = ("/listen", "/room", "/room", "/chat?user=gone")
SLOWER = 1.5
"""Times the p99 of before that an answer's may be; or ``NOISE`` ms more."""
NOISE = 5.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def swallow(direction: str = "add") -> None:
    for side in ("from", "to"):
        ip("rule", direction, "pref", "10", side, f"{SWALLOWED}.0/24", "blackhole")


@contextlib.contextmanager
def answering(clients: list[RawClient]) -> Iterator[None]:
    """Answer pings for as long as the block runs."""
    over = threading.Event()

    def answer() -> None:
        with selectors.DefaultSelector() as selector:
            for client in clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while not over.is_set():
                for key, _ in selector.select(0.05):
                    key.data.connection.receive_data(key.data.socket.recv(65536))
                    key.data.socket.sendall(key.data.connection.data_to_send())

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def talking(server: Server) -> Iterator[None]:
    """Have somebody say something in the room, again and again, and read it."""
    over = threading.Event()

    def talk() -> None:
        said = encode_frame(Opcode.TEXT, b"x" * 200, mask=bytes(4))
        with RawClient(server).open("/room") as client:
            while not over.wait(0.05):
                client.socket.sendall(said)
                client.connection.receive_data(client.socket.recv(65536))
                client.socket.sendall(client.connection.data_to_send())

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def measuring(server: Server, seconds: float, took: list[float]) -> Iterator[None]:
    """Have ten be answered meanwhile, and add their p99 in ms to ``took``.

    Not behind TLS, which the load does not speak.
    """
    if server.kind.tls:
        yield
        return
    options = {"conns": 10, "rate": 200, "window": 1000, "seconds": seconds}
    with Load(
        server,
        two_cores()[1],
        scenario="echo",
        path="/listen",
        **options,  # type: ignore[arg-type]
    ) as load:
        load.start()
        yield
        took.append(load.result()["p99_us"] / 1000)


def swallowed(server: Server, peers: int, took: list[float]) -> float:
    """Return the seconds until peers that are swallowed are gone."""
    with contextlib.ExitStack() as connected:
        server.source = f"{SWALLOWED}.1"
        clients = [
            connected.enter_context(RawClient(server).open(PATHS[n % len(PATHS)]))
            for n in range(peers)
        ]
        server.source = "127.0.0.1"
        connected.enter_context(talking(server))
        with answering(clients), measuring(server, INTERVAL, took):
            pass
        eventually(lambda: server.holds()["connections"] == peers + 1)
        with measuring(server, INTERVAL + TIMEOUT, took):
            open_files, began = server.open_files(), time.monotonic()
            swallow()
            connected.callback(swallow, "del")  # before they are closed, which is told
            eventually(
                lambda: server.open_files() <= open_files - peers,
                lambda: f"{server.open_files()} of {open_files} open files",
                sleep=lambda _: time.sleep(0.05),
            )
            return time.monotonic() - began


def try_one(name: str, peers: int, folder: Path) -> bool:
    """Print what happens; return whether that is what should."""
    kind = with_settings(name, PING_INTERVAL=INTERVAL, PING_TIMEOUT=TIMEOUT)
    if name == "gthread-tls":  # each socket has one of a few threads
        peers = THREADS // 2
    server = Server(kind, folder, make_pair(folder) if kind.tls else (folder, folder))
    took: list[float] = []
    try:
        server.ensure()
        with RawClient(server) as first:  # whatever is made only once
            first.open("/room")
        eventually(lambda: server.holds()["connections"] == 0)
        before = server.holds()
        noticed = swallowed(server, peers, took)
        eventually(lambda: not server.left(before), lambda: f"{server.left(before)}")
    finally:
        server.stop()
    good = noticed <= INTERVAL + TIMEOUT + SLACK and "Traceback" not in server.log
    text = f"{name:14} {peers} peers are gone after {noticed:.1f} s"
    if took:
        text += f"; p99 of an echo {took[1]:.1f} ms, before {took[0]:.1f} ms"
        good = good and took[1] <= max(SLOWER * took[0], took[0] + NOISE)
    print(f"{text}; {'holds' if good else 'FAILS'}", flush=True)
    return good


def main() -> None:
    names = [kind.name for kind in KINDS if not kind.unix]
    parser = argparse.ArgumentParser(prog="python -m tests.scale.blackholes")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--peers", type=int, default=20)
    options = parser.parse_args()
    if INSIDE not in os.environ:
        command = [sys.executable, "-m", "tests.scale.blackholes", *sys.argv[1:]]
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", *root, *command])
    ip("link", "set", "lo", "up")
    # What is local is looked up after the rules that swallow.
    ip("rule", "add", "pref", "100", "lookup", "local")
    ip("rule", "del", "pref", "0")
    print(f"They are to be gone after {INTERVAL + TIMEOUT:g} s.")
    good = True
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="wschat-blackholes-") as folder:
            good = try_one(name, options.peers, Path(folder)) and good
    sys.exit(not good)


if __name__ == "__main__":
    main()
