"""Wrong values in every public call: an error there and then, nothing has changed."""

from __future__ import annotations

import decimal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_wschat import PollError, WebSocket, WSChat
from flask_wschat.testing import WSChatClient, WSChatSession
from tests.protocol.peers import Peer
from tests.support.following import make_chat, url
from tests.support.live import Serve

__all__ = ["make_chat", "url"]

NAN = float("nan")
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class Unseen:
    def __repr__(self) -> str:
        raise RuntimeError


# No room, no user, no key; and no number, no code, no reason, no list of options ...
NOTHING: list[Any] = [True, False, 1.5, NAN, b"x", [], ["a"], {}, {"a": 1}, object()]
NOTHING += [DEEP, Unseen()]
NAMES = [*NOTHING, "", "\ud800", "\0x", "a\nb", "x" * 300, CIRCLE, 10**300]
DATA: list[Any] = [
    NAN,
    float("inf"),
    {"a": [1, -float("inf")]},
    CIRCLE,
    DEEP,
    object(),
    {1, 2},
    1j,
    {b"a": 1},
    {(1, 2): 3},
    (number for number in "1"),
    "\ud800",
    "a" * 10_000 + "\udfff",
]
CODES = [*NOTHING, None, "4000", 4000.0, 0, -1, 999, 1004, 1005, 1006, 1015, 2999]
CODES += [5000, 5100, 2**70]
REASONS = [*NOTHING, None, 5]
NUMBERS = [*NOTHING, "1", -1, -(2**70), CIRCLE]
NOT_SOCKETS = [*NOTHING, "ann", 5]


def calls(chat: WSChat, poll: Any) -> dict[str, tuple[Callable[[Any], Any], list[Any]]]:
    return {
        "broadcast data": (chat.broadcast, DATA),
        "room data": (lambda x: chat.broadcast(x, room="a"), DATA),
        "room": (lambda x: chat.broadcast("x", room=x), NAMES),
        "key": (lambda x: chat.broadcast("x", room="a", key=x), NAMES),
        "exclude": (lambda x: chat.broadcast("x", room="a", exclude=x), NOT_SOCKETS),
        "user": (lambda x: chat.send_to_user(x, "x"), [*NAMES, None, 0]),
        "user data": (lambda x: chat.send_to_user("ann", x), DATA),
        "user key": (lambda x: chat.send_to_user("ann", "x", key=x), NAMES),
        "disconnected": (chat.disconnect_user, [*NAMES, None, 0]),
        "code": (lambda x: chat.disconnect_user("ann", x), CODES),
        "reason": (lambda x: chat.disconnect_user("ann", 4000, x), REASONS),
        "online": (chat.online, NAMES),
        "is online": (chat.is_online, [*NAMES, None, 0]),
        "history": (chat.history, [*NAMES, None]),
        "after": (lambda x: chat.history("a", after=x), NUMBERS),
        "limit": (lambda x: chat.history("a", limit=x), [*NUMBERS, None]),
        "poll": (lambda x: chat.poll(x, ["a", "b"]), [*NAMES, None, 5]),
        "options": (
            lambda x: chat.poll("p", x),
            [*NOTHING, None, "ab", ["a", 1], ["a", "a"], ["a", ""], ["a", "\ud800"]],
        ),
        "poll's room": (lambda x: chat.poll("p", ["a", "b"], room=x), NAMES),
        "voter": (lambda x: poll.vote(x, "yes"), [*NAMES, None, 0]),
        "choice": (lambda x: poll.vote("ann", x), [*NOTHING, None, "", "\ud800", 5]),
        "whose": (poll.tally, [*NAMES, 0]),
    }


def socket_calls(ws: WebSocket) -> dict[str, tuple[Callable[[Any], Any], list[Any]]]:
    return {
        "join": (ws.join, [*NAMES, None]),
        "leave": (ws.leave, [*NAMES, None]),
        "send": (ws.send, DATA),
        "send_json": (ws.send_json, [d for d in DATA if not isinstance(d, str)]),
        "close code": (ws.close, CODES),
        "close reason": (lambda x: ws.close(4000, x), REASONS),
        "timeout": (lambda x: ws.receive(timeout=x), ["1", [], {}, b"1", object()]),
    }


def refused(many: dict[str, tuple[Callable[[Any], Any], list[Any]]]) -> list[Any]:
    """Return the calls and values that were no ``TypeError`` or ``ValueError``."""
    wrong: list[Any] = []
    for name, (call, values) in many.items():
        for value in values:
            try:
                call(value)
            except (TypeError, ValueError, PollError):
                continue
            except BaseException as error:
                wrong.append((name, type(value), error))
            else:
                wrong.append((name, type(value), "was taken"))
    return wrong


@pytest.fixture
def chat(make_chat: Callable[..., WSChat]) -> WSChat:
    return make_chat()


@pytest.fixture
def ann(chat: WSChat) -> Iterator[WSChatSession]:
    """A plain connection that tries all calls of its own when it is told to."""

    @chat.route("/plain")
    def plain(ws: WebSocket) -> None:
        ws.join("a")
        ws.send("in")
        for message in ws:
            if message == "try":
                ws.send_json([repr(each) for each in refused(socket_calls(ws))])
                ws.send_json(sorted(ws.rooms))
            else:
                ws.send(message)

    with WSChatClient(chat._app()).connect("/plain", user="ann") as session:
        session.assert_received("in")
        yield session


@pytest.mark.timeout(30)
def test_a_wrong_value_is_an_error_at_the_call_and_changes_nothing(
    chat: WSChat, ann: WSChatSession
) -> None:
    poll = chat.poll("Tea?", ["yes", "no"])
    assert refused(calls(chat, poll)) == []
    assert chat.history("a") == []
    assert poll.tally().version == 0 and chat._chat().polls.keys() == {"Tea?"}
    assert chat.broadcast("first", room="a") == 1
    ann.assert_received("first")
    assert chat.online() == ["ann"]
    assert chat.send_to_user("ann", "yours") == 1
    ann.assert_received("yours")


@pytest.mark.parametrize("url", ["memory"], indirect=True)
@pytest.mark.timeout(30)
def test_a_wrong_value_for_a_connection_s_own_calls(
    chat: WSChat, ann: WSChatSession
) -> None:
    ann.send("try")
    ann.assert_received([])
    ann.assert_received(["a"])
    ann.send("still here")
    ann.assert_received("still here")
    chat.broadcast("and in the room", room="a")
    ann.assert_received("and in the room")


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_odd_values_that_are_right(chat: WSChat, ann: WSChatSession) -> None:
    class Text(str):
        def __str__(self) -> str:
            return "something else"

    for data, expected in (
        (Text("plain"), "plain"),
        (None, None),
        (True, True),
        (10**400, 10**400),
        ("NaN", "NaN"),
        (["NaN", "Infinity"], ["NaN", "Infinity"]),
        (decimal.Decimal("1.5"), '"1.5"'),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        ({1: None}, {"1": None}),
    ):
        chat.broadcast(data, room="a")
        ann.assert_received(expected)
    assert chat.history("a", after=2**70, limit=2**70) == []
    assert chat.history("a", limit=0) == []


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_reason_is_cut_to_what_a_close_frame_holds(
    chat: WSChat, ann: WSChatSession
) -> None:
    assert chat.disconnect_user("ann", 4001, "é" * 1_000_000) == 1
    ann.assert_closed(4001)
    assert ann.close_reason == "é" * 61


def test_what_json_has_not_does_not_break_a_page(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    """Kept, it would be a part of what every client is sent from then on."""
    chat = make_chat()
    server = serve(chat._app())
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    with pytest.raises(ValueError, match="NaN is not JSON"):
        chat.broadcast({"mean": NAN}, room="Lobby")
    with pytest.raises(ValueError, match="surrogate"):
        chat.broadcast("\ud800", room="Lobby")
    chat.broadcast({"mean": None}, room="Lobby")
    assert ann.expect("message")["data"] == {"mean": None}
    page = Peer(server, "ben").ask("join", room="Lobby")
    assert [message["data"] for message in page["messages"]] == [{"mean": None}]


def test_an_integer_of_another_thread_is_no_problem(chat: WSChat) -> None:
    errors: list[Any] = []
    poll = chat.poll("Tea?", ["yes", "no"])
    thread = threading.Thread(target=lambda: errors.extend(refused(calls(chat, poll))))
    thread.start()
    thread.join()
    assert errors == []
