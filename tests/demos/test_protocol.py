"""The protocol page: it shows the bytes that pass, and what wrong ones come to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as foreign

from demos import byhand
from demos.byhand import Frames
from demos.protocol import Watch
from example_app import app
from flask_wschat.codec import Anatomy
from tests.demos import browsing
from tests.demos.serving import DEADLINE, DemoServer, Person, Tab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path_factory.mktemp("protocol") / "log")
    yield server
    server.end(signal.SIGTERM)
    assert "Traceback" not in server.log, server.log


class Reader(Person):
    """Somebody with the page open."""

    def __init__(self, server: DemoServer) -> None:
        super().__init__(server)
        status, page = self.http("GET", "/protocol")
        assert status == 200
        found = re.search(r'data-page="([0-9a-f]{16})"', page)
        assert found is not None
        self.page = found[1]
        self.tab: Tab = self.connect("/ws/wire")
        reply = self.tab.ask("join", room=f"{self.tab.user} {self.page}")
        assert reply["ok"], reply

    def echo(self, **options: Any) -> ClientConnection:
        compress = "&compress" if options.get("compression") else ""
        client: ClientConnection = foreign(
            f"ws://127.0.0.1:{self.server.port}/ws/echo?page={self.page}{compress}",
            additional_headers={"Cookie": self.cookie},
            proxy=None,
            ping_interval=None,
            open_timeout=DEADLINE,
            **{"compression": None, "max_size": None, **options},
        )
        self.opened = self.tab.expect("opened")
        return client

    def passed(self, direction: str) -> dict[str, Any]:
        socket = self.opened["socket"]
        event = self.tab.expect("passed", direction=direction, socket=socket)
        (frame,) = event["frames"]
        return dict(frame)

    def by_hand(self, *frames: dict[str, Any]) -> dict[str, Any]:
        reply = self.tab.ask("by_hand", frames=[FINE | frame for frame in frames])
        assert reply["ok"], reply
        result: dict[str, Any] = reply["result"]
        return result


FINE: dict[str, Any] = {
    **{"fin": True, "rsv": 0, "opcode": 1, "bits": 7, "key": "37fa213d"},
    **{"length": 5, "payload": b"hello".hex()},
}


@pytest.fixture(scope="module")
def reader(server: DemoServer) -> Iterator[Reader]:
    reader = Reader(server)
    yield reader
    reader.tab.close()


def test_the_handshake_is_told_as_it_was(reader: Reader) -> None:
    with reader.echo() as client:
        opened = reader.opened
        assert client.request is not None and client.response is not None
        key = client.request.headers["Sec-WebSocket-Key"]
        assert opened["nonce"] == key
        assert f"Sec-WebSocket-Key: {key}".lower() in map(str.lower, opened["request"])
        assert opened["accept"] == client.response.headers["Sec-WebSocket-Accept"]
        assert opened["answer"][0] == "HTTP/1.1 101 Switching Protocols"
        assert f"Sec-WebSocket-Accept: {opened['accept']}" in opened["answer"]
        assert reader.cookie not in json.dumps(opened)  # it stays a secret


def test_frames_are_told_byte_by_byte(reader: Reader) -> None:
    with reader.echo() as client:
        client.send("hello")
        assert client.recv(DEADLINE) == "server got: hello"
        frame = reader.passed("received")
        key, raw = bytes.fromhex(frame.pop("key")), bytes.fromhex(frame.pop("raw"))
        assert bytes(a ^ b for a, b in zip(raw, key + key, strict=False)) == b"hello"
        bits = {"fin": True, "rsv": [False, False, False], "opcode": 1}
        assert frame == bits | {"masked": True, "length": 5, "bits": 7}
        answer = reader.passed("sent")
        assert bytes.fromhex(answer["raw"]) == b"server got: hello"
        assert (answer["masked"], answer["key"]) == (False, "")
        for size, width in [(125, 7), (126, 16), (70_000, 64)]:
            client.send(b"x" * size)
            assert len(client.recv(DEADLINE)) == size + 12
            frame = reader.passed("received")
            assert (frame["length"], frame["bits"]) == (size, width)
            assert len(frame["raw"]) == 2 * min(size, len(frame["raw"]) // 2) <= 512
            assert reader.passed("sent")["length"] == size + 12
        client.ping()
        assert reader.passed("received")["opcode"] == 9
        assert reader.passed("sent")["opcode"] == 10


def test_compression_is_there_for_who_asks(reader: Reader) -> None:
    with reader.echo(compression="deflate") as client:
        text = "banana " * 300
        client.send(text)
        assert client.recv(DEADLINE) == f"server got: {text}"
        for direction, begins in [("received", ""), ("sent", "server got: ")]:
            frame = reader.passed(direction)
            assert frame["rsv"] == [True, False, False]
            assert frame["length"] < 100
            shown = bytes.fromhex(frame["inflated"]).decode()
            assert len(shown) == 256 and (begins + text).startswith(shown)
    url = f"ws://127.0.0.1:{reader.server.port}/ws/echo"
    with foreign(url, proxy=None, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_closings_by_the_server(reader: Reader) -> None:
    for code in (1000, 1011, 3000, 4999):
        with reader.echo() as client:
            client.send(f"close {code}")
            with pytest.raises(Exception, match=f"{code}.*as you asked"):
                client.recv(DEADLINE)
    with reader.echo() as client:
        client.send("cut")
        with pytest.raises(Exception, match="no close frame"):
            client.recv(DEADLINE)


def test_a_ping_of_the_browser_is_timed(reader: Reader) -> None:
    with reader.echo() as client:
        client.send("ping")
        assert client.recv(DEADLINE) == "server got: ping"
        reader.passed("received")
        event = reader.tab.expect("passed", direction="sent")
        assert [frame["opcode"] for frame in event["frames"]] == [1, 9]
        answer = reader.tab.expect("passed", direction="received")
        assert [frame["opcode"] for frame in answer["frames"]] == [10]
        assert answer["at"] > event["at"]
        client.send("still there")
        assert client.recv(DEADLINE) == "server got: still there"


def test_fragments_become_one_message(reader: Reader) -> None:
    texts = ["and a ", "happy new ", "year!"]
    result = reader.by_hand(
        *(
            {
                "fin": number == 2,
                "opcode": 0 if number else 1,
                "length": len(text),
                "payload": text.encode().hex(),
            }
            for number, text in enumerate(texts)
        )
    )
    assert result["open"]
    *sent, answer = result["frames"]
    assert [frame["direction"] for frame in sent] == ["received"] * 3
    assert [(frame["fin"], frame["opcode"]) for frame in sent] == [
        (False, 1),
        (False, 0),
        (True, 0),
    ]
    assert answer["direction"] == "sent" and answer["fin"]
    assert bytes.fromhex(answer["raw"]) == b"server got: and a happy new year!"


WRONG = {
    "unmasked": ({"key": ""}, 1002),
    "RSV bit": ({"rsv": 2}, 1002),
    "reserved opcode": ({"opcode": 3}, 1002),
    "long ping": (
        {"opcode": 9, "bits": 16, "length": 126, "payload": "61" * 126},
        1002,
    ),
    "fragmented ping": ({"opcode": 9, "fin": False}, 1002),
    "bad UTF-8": ({"length": 2, "payload": "c328"}, 1007),
    "no beginning": ({"opcode": 0}, 1002),
    "1005": ({"opcode": 8, "length": 2, "payload": "03ed"}, 1002),
    "long form": ({"bits": 16}, 1002),
    "longest form": ({"bits": 64}, 1002),
    "huge": ({"bits": 64, "length": 1 << 40}, 1009),
}


@pytest.mark.parametrize(("frame", "code"), WRONG.values(), ids=WRONG)
def test_wrong_frames_are_closed(
    reader: Reader, frame: dict[str, Any], code: int
) -> None:
    result = reader.by_hand(frame)
    assert not result["open"]
    close = result["frames"][-1]
    assert (close["direction"], close["opcode"]) == ("sent", 8)
    assert int(close["raw"][:4], 16) == code
    assert len(close["raw"]) > 4  # with a reason


def test_ping_and_close_by_hand(reader: Reader) -> None:
    result = reader.by_hand({"opcode": 9})
    assert [frame["opcode"] for frame in result["frames"]] == [9, 10]
    assert result["frames"][1]["raw"] == FINE["payload"]
    result = reader.by_hand({"opcode": 8, "length": 2, "payload": "0bb8"})
    assert [frame["opcode"] for frame in result["frames"]] == [8, 8]
    assert not result["open"]


def test_what_is_no_frame_or_too_much_is_refused(server: DemoServer) -> None:
    reader = Reader(server)
    for frame in (
        {"bits": 8},
        {"bits": 7, "length": 126},
        {"rsv": 8},
        {"opcode": 16},
        {"length": -1},
        {"payload": "xy"},
        {"key": "37fa21"},
        {"payload": "61" * 1025},
    ):
        reply = reader.tab.ask("by_hand", frames=[FINE | frame])
        assert not reply["ok"] and reply["error"]["code"] == "forbidden", reply
    for frames in ([1], "text", [{"fin": True}]):
        reply = reader.tab.ask("by_hand", frames=frames)
        assert reply["error"]["code"] == "bad_request"
    replies = [reader.tab.ask("by_hand", frames=[FINE | {"rsv": 8}]) for _ in range(30)]
    assert "rate_limited" in [reply["error"]["code"] for reply in replies]
    reader.tab.close()


def test_a_page_is_told_to_nobody_else(server: DemoServer, reader: Reader) -> None:
    other = Reader(server)
    room = f"{reader.tab.user} {reader.page}"
    assert other.tab.ask("join", room=room)["error"]["code"] == "forbidden"
    with reader.echo() as client:
        client.send("secret")
        reader.tab.expect("passed", direction="sent")
    assert other.tab.heard() == []
    other.tab.close()


def test_reports_are_not_reported(reader: Reader) -> None:
    reader.tab.heard()
    other = reader.connect(f"/ws/wire?page={reader.page}")
    assert other.ask("join", room=f"{other.user} {reader.page}")["ok"]
    assert [*reader.tab.heard(), *other.heard()] == []
    other.close()


def test_floods_are_told_in_part(reader: Reader) -> None:
    with reader.echo() as client:
        for _ in range(90):
            client.ping()
        client.send("last")
        assert client.recv(DEADLINE) == "server got: last"
    told = [event for event in reader.tab.heard() if event["type"] == "passed"]
    assert 20 <= sum(len(event["frames"]) for event in told) <= 150


@pytest.mark.browser
def test_the_page_shows_it_all(chromium: Browser, server: DemoServer) -> None:
    context = chromium.new_context(viewport={"width": 320, "height": 640})
    visitor = browsing.Person(context, server.url)
    page = visitor.open("/protocol")
    lamps = page.locator("#lamps li")
    expect(lamps.nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("#agreed")).to_contain_text("has computed the same")

    page.get_by_label("Send a text").fill("<b>你好</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("server got: <b>你好</b>")
    frames = page.locator("#frames > li")
    expect(frames).to_have_count(2)
    sent = frames.last
    expect(sent.locator(".says")).to_have_text("“<b>你好</b>”")
    values = [*sent.locator(".value").all_text_contents()][:5]
    assert values == ["1", "000", "0001", "1", "0001101"]
    sent.get_by_role("button", name="Undo the mask").click()
    plain = sent.locator(".unmask tbody td:nth-child(4) code:first-child")
    assert "".join(plain.all_text_contents()) == "<b>你好</b>".encode().hex()

    page.get_by_role("button", name="Three fragments").click()
    talk = page.locator("#talk > li")
    expect(talk).to_have_count(4)
    expect(talk.last.locator(".says")).to_have_text(
        "“server got: and a happy new year!”"
    )
    page.get_by_role("button", name="Not masked", exact=True).click()
    expect(page.locator("#outcome")).to_contain_text("ends it with 1002")
    expect(talk).to_have_count(2)

    page.get_by_role("button", name="1011 by the server").click()
    expect(page.locator("#closing")).to_contain_text("code 1011, reason “as you asked”")
    page.get_by_role("button", name="1006: cut").click()
    expect(page.locator("#closing")).to_contain_text("code 1006")
    page.get_by_role("button", name="4000 by the browser").click()
    expect(page.locator("#closing")).to_contain_text("code 4000")
    expect(lamps.nth(3)).to_have_attribute("aria-current", "true")

    page.get_by_label("Compress").check()
    expect(lamps.nth(1)).to_have_attribute("aria-current", "true")
    expect(page.locator("#answer")).to_contain_text("permessage-deflate")
    page.get_by_role("button", name="65,536 bytes").click()
    expect(frames.nth(1).locator(".rsv .value")).to_have_text("100")
    page.evaluate(
        "setInterval(() => document.querySelector('#say').requestSubmit(), 60)"
    )
    expect(frames).to_have_count(100)
    page.get_by_role("button", name="Clear").click()
    expect(frames.nth(1)).to_be_visible()  # others come
    assert frames.count() < 100
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    context.close()
    visitor.check()


def test_an_attempt_without_descriptors_is_no_attempt_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as full:
        full.setattr(socket, "socketpair", lambda: os.open("/dev/full/none", 0))
        for _ in range(20):
            with pytest.raises(OSError):
                byhand.converse([], "localhost", None)
    with app.app_context():
        assert byhand.converse([], "localhost", None) == {"frames": [], "open": True}


def test_a_flood_is_held_up() -> None:
    pong = bytes.fromhex("8a8000000000")
    watch, begun = Watch("room", []), monotonic()
    with app.app_context():
        watch.tell("received", pong * 5000)
    assert 0.4 < monotonic() - begun < 5


def test_a_code_that_may_not_be_sent_is_said_so(reader: Reader) -> None:
    with reader.echo() as client:
        client.send("close 1006")
        assert "1006 may not be sent" in str(client.recv(DEADLINE))


def test_long_frames_come_in_pieces() -> None:
    stream = bytes.fromhex("817e03e8") + b"a" * 1000 + bytes.fromhex("8101") + b"b"
    for size in (1, 3, 100, 2000):
        reader = Frames()
        found: list[Anatomy] = []
        for start in range(0, len(stream), size):
            found += reader.add(stream[start : start + size])
            assert len(reader._data) <= 2000
        assert [frame.length for frame in found] == [1000, 1]
        assert found[1].payload == b"b"
