"""Requests under way together: what is stored later is answered in its turn."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets.sync.client

from flask_wschat import ChatListener, WSChat
from flask_wschat.backends import MemoryBackend
from flask_wschat.chat.answers import MOST
from flask_wschat.chat.events import PATIENCE
from flask_wschat.errors import BackendError
from flask_wschat.incoming import INBOX_LIMIT
from flask_wschat.messages import Message, Receipt
from tests.support.chat_client import ChatClient
from tests.support.following import make_chat, url
from tests.support.live import Serve
from tests.support.threaded import serve_threaded
from tests.support.waiting import eventually

__all__ = ["make_chat", "url"]

pytestmark = pytest.mark.parametrize("url", ["memory"], indirect=True)

Done = Callable[[Receipt | Exception], None]


class Later(MemoryBackend):
    """Stores at once, and says so in a thread of its own, when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.errors: dict[str, Exception] = {}
        """By the data of a message: what becomes of it."""
        self.refuses = False
        self._ready: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._let = threading.Semaphore(0)
        threading.Thread(target=self._work, daemon=True).start()

    def submit(
        self, topic: str, message: Message, done: Done, *, keep: bool = False
    ) -> None:
        if self.refuses:
            raise BackendError("not started")
        self.asked.append(str(message.data))

        def answer() -> None:
            if error := self.errors.get(str(message.data)):
                done(error)
            else:
                super(Later, self).submit(topic, message, done, keep=keep)

        self._ready.put(answer)

    def hold(self) -> None:
        """Let nobody, whoever was let before."""
        while self._let.acquire(blocking=False):
            pass

    def let(self, count: int) -> None:
        for _ in range(count):
            self._let.release()

    def _work(self) -> None:
        while True:
            answer = self._ready.get()
            self._let.acquire()
            answer()


Connect = Callable[..., ChatClient]


@pytest.fixture
def later() -> Iterator[Later]:
    later = Later()
    yield later
    later.let(10_000)


@pytest.fixture(params=["gevent", "threads"])
def connect(
    later: Later, make_chat: Callable[..., WSChat], serve: Serve, request: Any
) -> Iterator[Connect]:
    """Return a function that connects a user, who is in the lobby, to a listener."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:

        def connect(
            user: str = "ann",
            listener: type[ChatListener] = ChatListener,
            **config: Any,
        ) -> ChatClient:
            if not ports:
                app = make_chat(listener, URL=later, **config)._app()
                if request.param == "threads":
                    ports.append(stack.enter_context(serve_threaded(app)))
                else:
                    ports.append(serve(app).port)
            url = f"ws://127.0.0.1:{ports[0]}/chat?user={user}"
            client = websockets.sync.client.connect(
                url, ping_interval=None, max_queue=None
            )
            stack.enter_context(client)
            stack.callback(later.let, 10_000)
            peer = ChatClient(client)
            assert peer.ask("join", room="Lobby")["ok"]
            return peer

        yield connect


def say(peer: ChatClient, data: Any) -> int:
    return peer.put("say", room="Lobby", data=data, mid=f"m-{data}"[:60])


def replies(peer: ChatClient, count: int) -> list[Any]:
    """Return so many replies as they come: number or code by reference."""
    found: list[Any] = []
    while len(found) < count:
        message = peer.hear()
        if message["type"] == "reply":
            what = message.get("error", message)
            found.append((message["ref"], what.get("code", what.get("seq"))))
    return found


def test_what_is_under_way_is_answered_in_the_order_asked(
    later: Later, connect: Connect
) -> None:
    ann = connect()
    first = say(ann, 1)
    asked = [
        *(say(ann, 2), ann.put("ping"), ann.put("nonsense")),
        *(say(ann, 3), ann.put("say", room="Attic", data=1, mid="m")),
    ]
    eventually(lambda: later.asked == ["1", "2", "3"])
    later.let(1)
    assert replies(ann, 1) == [(first, 1)]
    later.let(2)
    codes = [2, None, "unknown_type", 3, "not_joined"]
    assert replies(ann, 5) == list(zip(asked, codes, strict=True))


def test_only_so_much_is_under_way(later: Later, connect: Connect) -> None:
    """The others wait, and are heard as soon as there is room."""
    ann = connect()
    asked = [say(ann, number) for number in range(2 * MOST)]
    eventually(lambda: len(later.asked) == MOST)
    later.let(1)
    eventually(lambda: len(later.asked) == MOST + 1)
    later.let(2 * MOST)
    assert replies(ann, 2 * MOST) == [(ref, n + 1) for n, ref in enumerate(asked)]
    large = "x" * (INBOX_LIMIT // 5)
    count = len(later.asked)
    later.hold()
    for number in range(20):
        ann.put("say", room="Lobby", data=large, mid=f"large-{number}")
    eventually(lambda: len(later.asked) == count + 5)
    later.let(20)
    assert [seq for _, seq in replies(ann, 20)] == [2 * MOST + n + 1 for n in range(20)]


def test_what_asks_how_things_are_sees_what_was_said_before(
    later: Later, connect: Connect
) -> None:
    ann = connect()
    for number in range(3):
        say(ann, number)
    history = ann.put("history", room="Lobby")
    leave = ann.put("leave", room="Lobby")
    after = say(ann, "gone")
    eventually(lambda: len(later.asked) == 3)
    later.let(3)
    assert [seq for _, seq in replies(ann, 3)] == [1, 2, 3]
    page = ann.reply(history)
    assert [message["data"] for message in page["messages"]] == [0, 1, 2]
    assert ann.reply(leave)["ok"]
    assert ann.reply(after)["error"]["code"] == "not_joined"


def test_a_tell_is_kept_for_both_in_the_order_told(
    later: Later, connect: Connect
) -> None:
    ann, ben = connect(), connect("ben")
    asked = [
        ann.put("tell", to=to, data=n, mid=f"m{n}")
        for n, to in enumerate(["ben", "ann", "ben", "cy"])
    ]
    later.let(10)
    assert replies(ann, 4) == [(ref, n + 1) for n, ref in enumerate(asked)]
    mine = ann.ask("inbox")["messages"]
    assert [m["to"] for m in mine] == ["ben", "ann", "ben", "cy"]
    assert [m["data"] for m in ben.ask("inbox")["messages"]] == [0, 2]


def test_who_cannot_be_answered_is_told_and_the_others_are(
    later: Later, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    ann = connect()
    later.errors = {
        "1": BackendError("gone"),
        "2": KeyError("a mistake"),
        "4": KeyError(),
    }
    later.let(100)
    for number in range(4):
        say(ann, number)
    ann.put("tell", to="ben", data=4, mid="m")
    codes = [code for _, code in replies(ann, 5)]
    assert codes == [1, "unavailable", "internal", 2, "internal"]
    assert "a mistake" in caplog.text and "/chat (user ann" in caplog.text


def test_a_storage_that_raises_at_once_is_no_other(
    later: Later, connect: Connect
) -> None:
    ann = connect()
    later.refuses = True
    say(ann, 1)
    assert [code for _, code in replies(ann, 1)] == ["unavailable"]


def test_what_a_gone_client_asked_is_not_worked_off(
    later: Later, connect: Connect
) -> None:
    """And what is under way goes on, and hurts nobody."""
    ann = connect()
    for number in range(3 * MOST):
        say(ann, number)
    eventually(lambda: len(later.asked) == MOST)
    ann.client.close_socket()
    again = connect()
    later.let(1000)
    assert say(again, "again") and replies(again, 1) == [(2, MOST + 1)]
    assert len(later.asked) == MOST + 1


def test_a_hook_sees_what_was_said_before(later: Later, connect: Connect) -> None:
    class Once(ChatListener):
        """What the newest message says is not said again."""

        def can_say(self, user: str | None, room: str, data: Any) -> bool:
            newest = later.history(f"room:{room}", limit=1).entries
            return not newest or newest[0].data != json.dumps(data)

    ann = connect(listener=Once)
    later.let(100)
    for number, data in enumerate([1, 1, 2, 2, 2, 1]):
        ann.put("say", room="Lobby", data=data, mid=f"m{number}")
    codes = [code for _, code in replies(ann, 6)]
    assert codes == [1, "forbidden", 2, "forbidden", "forbidden", 3]


def test_who_is_closed_for_nonsense_is_answered_first(
    later: Later, connect: Connect
) -> None:
    ann = connect()
    say(ann, 1)
    for _ in range(PATIENCE + 1):
        ann.client.send("nonsense")
    eventually(lambda: later.asked)
    later.let(1)
    heard = replies(ann, 1 + PATIENCE)
    assert heard[0][1] == 1 and heard[1:] == [(None, "bad_json")] * PATIENCE
    assert ann.closed()[0] == 1008


def test_new_inboxes_are_counted_though_they_are_told_at_once(
    later: Later, connect: Connect
) -> None:
    class Few(ChatListener):
        new_rooms = (0.001, 4)  # the lobby is the first

    ann = connect(listener=Few, RATE_LIMIT=(50, 200))
    later.let(1000)
    later.submit("user:known", Message("1"), lambda receipt: None, keep=True)
    for number in range(10):
        ann.put("tell", to="known", data=number, mid=f"k{number}")
    for number in range(5):
        ann.put("tell", to=f"new-{number}", data=number, mid=f"n{number}")
    ann.put("tell", to="known", data=0, mid="last")
    codes = [code for _, code in replies(ann, 16)]
    assert codes == [*range(1, 14), "rate_limited", "rate_limited", 14]
