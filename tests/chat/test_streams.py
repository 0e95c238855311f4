"""Messages that grow: what readers see of them, and what ends them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from flask_wschat import (
    ChatListener,
    Events,
    Listener,
    StreamGone,
    StreamStopped,
    TooManyStreams,
    WebSocket,
    WSChat,
    event,
)
from flask_wschat.backends.growths import CLOSE
from flask_wschat.errors import BackendError
from tests.support.chat_client import Json
from tests.support.following import chat, make_chat, server, url
from tests.support.live import LiveServer, Serve, receive
from tests.support.waiting import DEADLINE, eventually, move_on

from ..protocol.peers import Peer

__all__ = ["chat", "make_chat", "server", "url"]

stored = pytest.mark.parametrize("url", ["memory", "sqlite", "redis"], indirect=True)
shared = pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
in_memory = pytest.mark.parametrize("url", ["memory"], indirect=True)

Two = tuple[WSChat, LiveServer, WSChat, LiveServer]


@pytest.fixture
def two(url: str, make_chat: Callable[..., WSChat], serve: Serve) -> Two:
    """Two processes, as it were."""
    one, other = make_chat(), make_chat()
    return one, serve(one._app()), other, serve(other._app())


class Watcher:
    """A client that obeys the protocol's page for what grows in one place.

    ``room``: None is the inbox.
    """

    def __init__(
        self, server: LiveServer, user: str = "ann", room: str | None = "Lobby"
    ) -> None:
        self.peer = Peer(server, user)
        self.room = room
        self.texts: dict[str, list[str]] = {}
        """What was shown of each, one after another."""
        self.open: dict[str, tuple[int, str]] = {}
        self.messages: dict[str, Any] = {}
        self.discarded: dict[str, str] = {}
        self.asked = 0
        self.at: Json = {}
        self.join()

    def join(self) -> None:
        place = {} if self.room is None else {"room": self.room}
        kind = "inbox" if self.room is None else "join"
        reply = self.peer.ask(kind, **place, **self.at)
        self.at = {"after": reply["seq"], "epoch": reply["epoch"], "tag": reply["tag"]}
        self.open = {}
        for message in reply["messages"]:
            self.messages[message["mid"]] = message["data"]
        for each in reply["streams"]:
            assert each["id"] not in self.messages
            self.show(each)

    def show(self, event: Json) -> None:
        assert event["room"] == self.room
        self.open[event["id"]] = event["n"], event["text"]
        self.texts.setdefault(event["id"], []).append(event["text"])

    def take(self) -> Json:
        """Do with the next event what the page says; return it."""
        event = self.peer.events.pop(0) if self.peer.events else self.peer.hear()
        kind = event["type"]
        if kind == "stream":
            self.show(event)
        elif kind == "append":
            n, text = self.open.get(event["id"], (-1, ""))
            if event["n"] == n + 1:
                self.show({**event, "text": text + event["text"]})
            elif event["n"] > n:
                place = {} if self.room is None else {"room": self.room}
                self.asked += 1
                self.show(self.peer.ask("stream", id=event["id"], **place))
        elif kind == "discard":
            self.open.pop(event["id"], None)
            self.discarded[event["id"]] = event["reason"]
        elif kind in ("message", "direct"):
            self.open.pop(event["mid"], None)
            self.messages[event["mid"]] = event["data"]
        return event

    def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.take()

    def finished(self, id: str) -> str:
        """Return the message that one has become; each text before began it."""
        self.until(lambda: id in self.messages)
        text: str = self.messages[id]
        assert all(text.startswith(part) for part in self.texts.get(id, ()))
        assert id not in self.open
        return text


def grown(chat: WSChat, topic: str = "room:Lobby") -> list[str]:
    return [each.text for each in chat._hub().backend.history(topic).streams]


# ---- what is seen --------------------------------------------------------------------


@stored
def test_a_message_grows_and_is_kept(chat: WSChat, server: LiveServer) -> None:
    ann = Peer(server, "ann")
    assert ann.ask("join", room="Lobby")["streams"] == []
    with chat.stream(room="Lobby", sender="bot") as answer:
        answer.append("Hel")
        begun, first = ann.expect("stream"), ann.expect("append")
        answer.append("lo")
        assert answer.text == "Hello"
    assert begun == {
        **{"type": "stream", "room": "Lobby", "id": answer.id, "from": "bot"},
        **{"at": begun["at"], "n": 0, "text": ""},
    }
    assert first == {
        **{"type": "append", "room": "Lobby", "id": answer.id},
        **{"n": 1, "text": "Hel"},
    }
    message = ann.expect("message")
    assert (message["mid"], message["data"], message["from"], message["seq"]) == (
        answer.id,
        "Hello",
        "bot",
        1,
    )
    (entry,) = chat.history("Lobby")
    assert (entry.data, entry.sender, entry.mid) == ("Hello", "bot", answer.id)
    assert ann.ask("join", room="Lobby")["streams"] == []


@stored
def test_who_comes_in_the_middle_has_all_of_it(
    chat: WSChat, server: LiveServer
) -> None:
    with chat.stream(room="Lobby") as answer:
        for piece in "What was said before":
            answer.append(piece)
        eventually(lambda: grown(chat) == ["What was said before"])
        ann = Watcher(server)
        assert ann.texts[answer.id] == ["What was said before"]
        answer.append(" and after")
        ben = Watcher(server, "ben")
    for watcher in (ann, ben):
        assert watcher.finished(answer.id) == "What was said before and after"
        assert watcher.asked == 0


@stored
def test_a_page_that_is_loaded_again_goes_on(chat: WSChat, server: LiveServer) -> None:
    """Again and again, while it is written: nothing is lost or doubled."""
    tabs = [Watcher(server), Watcher(server)]
    ended = threading.Event()
    stream = chat.stream(room="Lobby")

    def write() -> None:
        with stream:
            number = 0
            while not ended.wait(0.002):
                stream.append(f"{number} ")
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            shown = len(tabs[0].texts.get(stream.id, ()))
            tabs[0].until(lambda: len(tabs[0].texts.get(stream.id, ())) > shown + 1)  # noqa: B023
            at, tabs[0] = tabs[0].at, Watcher(server)
            assert stream.id in tabs[0].open
            tabs[1].peer.client.close_socket()
            tabs[1] = Watcher(server)
            tabs[1].at = at
    finally:
        ended.set()
        writer.join()
    text = stream.text
    assert text.split() == [str(n) for n in range(len(text.split()))]
    for tab in tabs:
        assert tab.finished(stream.id) == text
        assert tab.asked == 0


@stored
def test_who_was_away_has_the_message(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with chat.stream(room="Lobby") as answer:
        answer.append("x")
        ann.until(lambda: answer.id in ann.open)
        ann.peer.client.close_socket()
    with chat.stream(room="Lobby") as other:
        other.append("y")
        ann.peer = Peer(server, "ann")
        ann.join()
        assert ann.messages[answer.id] == "x"
        assert list(ann.open) == [other.id]
    assert ann.finished(other.id) == "y"


@stored
def test_an_inbox_has_them_too(chat: WSChat, server: LiveServer) -> None:
    tabs = [Watcher(server, "ann", None), Watcher(server, "ann", None)]
    other = Watcher(server, "ben", None)
    with chat.stream(user="ann", sender="bot") as answer:
        answer.append("For ")
        answer.append("you")
        tabs.append(Watcher(server, "ann", None))
        ref = {"id": answer.id}
        assert tabs[0].peer.ask("stream", **ref)["room"] is None
        assert other.peer.fail("stream", **ref)["code"] == "unknown_stream"
    for tab in tabs:
        assert tab.finished(answer.id) == "For you"
    assert other.peer.ask("inbox")["messages"] == []


@in_memory
def test_the_first_piece_is_there_at_once(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    took = []
    for _ in range(5):
        with chat.stream(room="Lobby") as answer:
            ann.until(lambda: answer.id in ann.open)
            begun = time.perf_counter()
            answer.append("x")
            ann.until(lambda: ann.open[answer.id][0] == 1)
            took.append(time.perf_counter() - begun)
    assert min(took) < 0.05


@in_memory
def test_pieces_are_gathered(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    begun = time.monotonic()
    with chat.stream(room="Lobby") as answer:
        while time.monotonic() < begun + 0.5:
            answer.append("word ")
            gevent.sleep(0.001)
    seconds = time.monotonic() - begun
    assert ann.finished(answer.id) == answer.text
    assert 2 <= len(ann.texts[answer.id]) - 1 <= 20 * seconds + 2


@in_memory
def test_what_is_left_goes_by_itself(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with chat.stream(room="Lobby") as answer:
        answer.append("a")
        answer.append("b")
        ann.until(lambda: ann.open.get(answer.id) == (2, "ab"))


@stored
def test_who_asks_is_told_all_of_it(chat: WSChat, server: LiveServer) -> None:
    ann = Peer(server, "ann")
    ann.ask("join", room="Lobby")
    with chat.stream(room="Lobby", sender="bot") as answer:
        answer.append("abc")
        ann.expect("append")
        reply = ann.ask("stream", room="Lobby", id=answer.id)
        assert (reply["room"], reply["id"], reply["from"]) == (
            *("Lobby", answer.id),
            "bot",
        )
        assert (reply["n"], reply["text"]) == (1, "abc")


@in_memory
def test_texts_of_any_kind(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with chat.stream(room="Lobby") as answer:
        for piece in "żółw", "🐢", '"quoted"\\', "\0\x1f\u2028", "</script>", "":
            answer.append(piece)
            ann.until(lambda: ann.open.get(answer.id, (0, ""))[1] == answer.text)
    assert ann.finished(answer.id) == answer.text
    assert ann.texts[answer.id][-1] == answer.text


@stored
def test_sockets_of_other_routes(chat: WSChat, server: LiveServer) -> None:
    """Those of ``Events`` see it grow; plain ones have what it becomes."""

    class Hall(Events):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("Hall")
            ws.send_json("joined")

    class Plain(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.join("Hall")
            ws.send_json("joined")

    chat.listener("/hall")(Hall)
    chat.listener("/plain")(Plain)
    hall, plain = server.connect("/hall"), server.connect("/plain")
    assert json.loads(receive(hall))["type"] == "hello"
    assert json.loads(receive(hall)) == json.loads(receive(plain)) == "joined"
    with chat.stream(room="Hall", sender="bot") as answer:
        answer.append("Hi")
        heard = [json.loads(receive(hall)) for _ in range(2)]
        assert [event["type"] for event in heard] == ["stream", "append"]
        assert (heard[0]["from"], heard[1]["text"]) == ("bot", "Hi")
    assert json.loads(receive(hall))["data"] == receive(plain) == "Hi"


# ---- how it ends ---------------------------------------------------------------------


@stored
def test_an_exception_discards_it_and_goes_on(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with (
        pytest.raises(LookupError, match="of the model"),
        chat.stream(room="Lobby") as answer,
    ):
        answer.append("x")
        raise LookupError("of the model: password=123")
    ann.until(lambda: answer.id in ann.discarded)
    assert ann.discarded[answer.id] == "the writer failed"
    assert chat.history("Lobby") == []
    with pytest.raises(StreamGone):
        answer.append("y")
    with pytest.raises(StreamGone):
        answer.finish()


@stored
def test_it_may_be_discarded(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with chat.stream(room="Lobby") as answer:
        answer.append("x")
        answer.discard("the model has no opinion")
        answer.discard("again")
    ann.until(lambda: answer.id in ann.discarded)
    assert ann.discarded[answer.id] == "the model has no opinion"
    assert chat.history("Lobby") == []


@stored
def test_who_asked_may_stop_it_from_any_tab(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    ended = threading.Event()

    class Answers(ChatListener):
        @event
        def prompt(self, room: str, id: str) -> None:
            answer = process.stream(room=room, sender="bot", id=id)

            def write() -> None:
                with answer:
                    while not ended.wait(0.01):
                        answer.append("word ")
                ended.set()

            threading.Thread(target=write).start()

    process = make_chat(Answers)
    server = serve(process._app())
    ann, tab, ben = (Watcher(server, user) for user in ("ann", "ann", "ben"))
    assert ann.peer.reply(ann.peer.put("prompt", room="Lobby", id="a1"))["ok"]
    tab.until(lambda: tab.open.get("a1", (0,))[0] > 2)
    assert ben.peer.fail("stop", room="Lobby", id="a1")["code"] == "forbidden"
    tab.peer.ask("stop", room="Lobby", id="a1")
    assert ended.wait(DEADLINE)
    texts = {watcher.finished("a1") for watcher in (ann, tab, ben)}
    assert len(texts) == 1 and texts.pop().startswith("word word ")


@shared
def test_it_is_stopped_from_another_process(two: Two) -> None:
    here, server, _, other_server = two
    ann, tab = Watcher(server), Watcher(other_server)
    stopped = False
    with here.stream(room="Lobby", asked_by="ann") as answer:
        answer.append("so far")
        tab.until(lambda: tab.open.get(answer.id, (0,))[0] == 1)
        tab.peer.ask("stop", room="Lobby", id=answer.id)
        with pytest.raises(StreamStopped):
            eventually(lambda: answer.append("."))
        stopped = answer.stopped
        answer.append("this raises")
    assert stopped
    text = ann.finished(answer.id)
    assert text == tab.finished(answer.id) == answer.text
    assert text.startswith("so far.")


@stored
def test_stopped_before_anything_was_written_it_is_discarded(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(PING_INTERVAL=1, PING_TIMEOUT=1)
    ann = Watcher(serve(chat._app()))
    with chat.stream(room="Lobby", sender="ann") as answer:
        ann.until(lambda: answer.id in ann.open)
        ann.peer.ask("stop", room="Lobby", id=answer.id)
        eventually(lambda: answer.stopped)
    ann.until(lambda: answer.id in ann.discarded)
    assert ann.discarded[answer.id] == "stopped"
    assert chat.history("Lobby") == []


@stored
def test_whose_inbox_it_is_may_stop_it(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server, "ann", None)
    with chat.stream(user="ann", sender="bot") as answer:
        answer.append("x")
        ann.until(lambda: answer.id in ann.open)
        ann.peer.ask("stop", id=answer.id)
        eventually(lambda: answer.append("."))  # ends the block
    assert ann.finished(answer.id).startswith("x")


@in_memory
def test_a_hook_says_who_may_stop_it(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    asked = []

    class Rules(ChatListener):
        def can_stop(self, user: str | None, room: str | None, id: str) -> Any:
            asked.append((user, room, id))
            return user == "chief" or super().can_stop(user, room, id)

    chat = make_chat(Rules)
    server = serve(chat._app())
    chief, ben, ann = (Watcher(server, user) for user in ("chief", "ben", "ann"))
    with chat.stream(room="Lobby", asked_by="ann") as answer:
        assert ben.peer.fail("stop", room="Lobby", id=answer.id)["code"] == "forbidden"
        chief.peer.ask("stop", room="Lobby", id=answer.id)
        ann.peer.ask("stop", room="Lobby", id=answer.id)
    assert asked == [(user, "Lobby", answer.id) for user in ("ben", "chief", "ann")]


# ---- bounds --------------------------------------------------------------------------


@stored
def test_eight_grow_in_a_room(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    streams = [chat.stream(room="Lobby") for _ in range(8)]
    with pytest.raises(TooManyStreams):
        chat.stream(room="Lobby")
    chat.stream(room="Attic").discard()
    for number, stream in enumerate(streams):
        stream.append(f"{number}")
    assert set(Watcher(server).open) == {stream.id for stream in streams}
    streams[0].finish()
    streams[1].discard()
    streams.append(chat.stream(room="Lobby"))
    for stream in streams[2:]:
        stream.finish()
        ann.finished(stream.id)


@in_memory
def test_who_asks_for_one_too_many_is_told(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    class Asking(ChatListener):
        @event
        def prompt(self, room: str) -> str:
            return process.stream(room=room).id

    process = make_chat(Asking)
    ann = Watcher(serve(process._app()))
    replies = [ann.peer.reply(ann.peer.put("prompt", room="Lobby")) for _ in range(9)]
    assert [reply["ok"] for reply in replies] == 8 * [True] + [False]
    assert replies[8]["error"]["code"] == "too_many"
    for reply in replies[:8]:  # she asked for them
        ann.peer.ask("stop", room="Lobby", id=reply["result"])


@stored
def test_it_may_have_so_many_bytes(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with (
        pytest.raises(ValueError, match="over 10 bytes"),
        chat.stream(room="Lobby", max_data=10) as answer,
    ):
        answer.append("żżżżż")
        answer.append("x")
    ann.until(lambda: answer.id in ann.discarded)
    assert ann.discarded[answer.id] == "it has over 10 bytes"
    assert chat.history("Lobby") == []


@stored
def test_it_may_take_so_many_seconds(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    with (
        pytest.raises(TimeoutError, match=r"0\.1 seconds"),
        chat.stream(room="Lobby", seconds=0.1) as answer,
    ):
        # Also where nothing is appended any more.
        ann.until(lambda: answer.id in ann.discarded)
        answer.append("x")
    assert ann.discarded[answer.id] == "it took over 0.1 seconds"
    assert grown(chat) == []


@in_memory
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, TypeError),
        ({"room": "a", "user": "b"}, TypeError),
        ({"room": ""}, ValueError),
        ({"room": None}, TypeError),
        ({"user": b"x"}, TypeError),
        ({"room": "a", "sender": ""}, ValueError),
        ({"room": "a", "id": "x" * 65}, ValueError),
        ({"room": "a", "asked_by": object()}, TypeError),
        ({"room": "a", "max_data": "1"}, TypeError),
        ({"room": "a", "max_data": -1}, ValueError),
        ({"room": "a", "seconds": 0}, ValueError),
        ({"room": "a", "seconds": float("nan")}, ValueError),
        ({"room": "a", "seconds": 10**400}, ValueError),
        ({"room": "a", "seconds": "1"}, TypeError),
        ({"room": "a", "seconds": True}, TypeError),
    ],
)
def test_what_cannot_begin(chat: WSChat, options: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        chat.stream(**options)
    assert grown(chat, "room:a") == []


@in_memory
def test_what_cannot_be_appended(chat: WSChat) -> None:
    with chat.stream(room="Lobby") as answer:
        for wrong in (b"x", None, 7, ["x"]):
            with pytest.raises(TypeError):
                answer.append(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="surrogate"):
            answer.append("\ud83d")
        answer.append("x")
    assert [entry.data for entry in chat.history("Lobby")] == ["x"]


@in_memory
def test_who_goes_on_after_the_end_is_told_each_time(chat: WSChat) -> None:
    answer = chat.stream(room="Lobby", max_data=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="over 1 bytes") as told:
            answer.append("xx")
    assert len(told.traceback) < 4  # those of the calls before are not in it


# ---- who writes ----------------------------------------------------------------------


@stored
def test_who_writes_it_again_is_the_only_one(chat: WSChat, server: LiveServer) -> None:
    """As a task that a queue gives to another worker while the first one still runs."""
    first = chat.stream(room="Lobby", id="task")
    first.append("first ")
    move_on(time.time, by=2 * CLOSE)
    with chat.stream(room="Lobby", id="task") as second:
        second.append("second ")
        with pytest.raises(StreamGone), first:
            eventually(lambda: first.append("first "))
        ann = Watcher(server)  # the end of that block has discarded nothing
        second.append("again")
    assert ann.finished("task") == "second again"
    assert not ann.discarded


@shared
def test_a_child_ends_nothing_of_its_parent_s(chat: WSChat) -> None:
    """Nor does it wait for the answer to a step that was under way."""
    with chat.stream(room="Lobby") as answer:
        answer.append("x")
        pid = os.fork()
        if not pid:
            status = 9
            with contextlib.suppress(StreamGone):
                answer.append("of the child")
                status = 1
            with contextlib.suppress(StreamGone):
                answer.finish()
                status = 2
            answer.discard()
            os._exit(status - 9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        answer.append("y")
    assert [entry.data for entry in chat.history("Lobby")] == ["xy"]


@stored
def test_a_dead_writer_s_is_discarded(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(PING_INTERVAL=2, PING_TIMEOUT=2)  # time for the living one
    server = serve(chat._app())
    ann = Watcher(server)
    alive = chat.stream(room="Lobby")
    dead = chat.stream(room="Lobby")
    dead.append("x")
    ann.until(lambda: dead.id in ann.open)
    dead._ended = True  # as if its process had been killed
    ann.until(lambda: dead.id in ann.discarded)
    assert ann.discarded[dead.id] == "its writer is gone"
    assert list(Watcher(server).open) == [alive.id]
    alive.append("still here")
    alive.finish()
    assert ann.finished(alive.id) == "still here"
    assert list(ann.discarded) == [dead.id]


@shared
def test_a_writer_s_process_need_not_serve(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    serving, task = make_chat(), make_chat()
    server = serve(serving._app())
    ann = Watcher(server)
    with task.stream(room="Lobby") as answer:
        answer.append("from ")
        answer.append("a task")
        ann.until(lambda: ann.open.get(answer.id) == (2, "from a task"))
    assert ann.finished(answer.id) == "from a task"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_process_that_ends_discards_what_it_wrote(
    url: str, chat: WSChat, server: LiveServer
) -> None:
    ann = Watcher(server)
    code = (
        "import sys; from flask_wschat import WSChat\n"
        "chat = WSChat.publisher(sys.argv[1])\n"
        "chat.stream(room='Lobby', id='x').append('half'); sys.exit('an error')"
    )
    subprocess.run([sys.executable, "-c", code, url], stderr=subprocess.DEVNULL)
    ann.until(lambda: "x" in ann.discarded)
    assert ann.texts["x"][-1] == "half"
    assert ann.discarded["x"] == "its writer's process has ended"


def test_one_begun_in_a_thread_of_a_patched_process_goes_on() -> None:
    """That thread does something else then, and its greenlets stand still."""
    code = """if True:
        from gevent import get_hub, monkey, sleep
        monkey.patch_all()
        import time
        from flask import Flask
        from flask_wschat import WSChat
        chat = WSChat(Flask("app"))
        answer = get_hub().threadpool.apply(lambda: chat.stream(room="a"))
        answer.append("x")
        answer.append("y")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            (grown,) = chat._hub().backend.history("room:a").streams
            if grown.text == "xy":
                raise SystemExit(0)
            sleep(0.01)
        raise SystemExit(1)
    """
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


@stored
def test_greenlets_and_threads_write(chat: WSChat, server: LiveServer) -> None:
    ann = Watcher(server)
    streams = [chat.stream(room="Lobby") for _ in range(4)]

    def write(number: int) -> None:
        with streams[number] as answer:
            for piece in range(40):
                answer.append(f"{number}.{piece} ")
                (time if number % 2 else gevent).sleep(0.002)

    threads = [threading.Thread(target=write, args=(n,)) for n in (1, 3)]
    for thread in threads:
        thread.start()
    gevent.joinall([gevent.spawn(write, n) for n in (0, 2)], raise_error=True)
    for thread in threads:
        thread.join()
    for number, stream in enumerate(streams):
        text = "".join(f"{number}.{piece} " for piece in range(40))
        assert ann.finished(stream.id) == text


@stored
def test_who_writes_it_again_begins_at_the_beginning(
    chat: WSChat, server: LiveServer
) -> None:
    """As a task that is tried again, whose worker was killed."""
    ann = Watcher(server)
    first = chat.stream(room="Lobby", id="task-1")
    first.append("half of it")
    ann.until(lambda: ann.open.get("task-1") == (1, "half of it"))
    with chat.stream(room="Lobby", id="task-1") as again:
        again.append("all of it")
    assert "task-1" in ann.open
    ann.texts.clear()
    assert ann.finished("task-1") == "all of it"
    with pytest.raises(StreamGone):
        eventually(lambda: first.append("x"))
    with chat.stream(room="Lobby", id="task-1") as more:
        more.append("and again")
    ann.until(lambda: ann.discarded.get("task-1") == "it was said before")
    assert [entry.data for entry in chat.history("Lobby")] == ["all of it"]


@in_memory
def test_what_a_storage_lacks_is_said_again(chat: WSChat, server: LiveServer) -> None:
    """Redis has failed over to a replica that did not have the last pieces."""
    ann = Watcher(server)
    growths = chat._hub().backend._growths  # type: ignore[attr-defined]
    with chat.stream(room="Lobby") as answer:
        for number in range(1, 4):
            answer.append(f"{number} ")
            ann.until(lambda: ann.open.get(answer.id, (0,))[0] == number)  # noqa: B023
        kept = growths._topics["room:Lobby"][answer.id]
        kept.grown = kept.grown._replace(n=1, text="1 ")
        chat._hub().lost(["room:Lobby"])
        eventually(lambda: ann.take()["type"] == "stream")
        assert ann.open[answer.id] == (1, "1 ")
        answer.append("4 ")
        eventually(lambda: isinstance(answer._error, StreamGone))
        answer.append("5 ")
        ann.until(lambda: ann.open[answer.id][1] == "1 2 3 4 5 ")
    assert ann.finished(answer.id) == "1 2 3 4 5 "


@in_memory
def test_a_storage_that_fails_is_asked_again(
    chat: WSChat, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Watcher(server)
    backend = chat._hub().backend
    failed: list[Any] = []
    publish = backend.publish

    def failing(*args: Any, **kwargs: Any) -> Any:
        if len(failed) < 3:
            failed.append(args)
            raise BackendError("it is away")
        return publish(*args, **kwargs)

    with chat.stream(room="Lobby") as answer:
        monkeypatch.setattr(backend, "publish", failing)
        answer.append("a")
        answer.append("b")
        ann.until(lambda: ann.open.get(answer.id) == (2, "ab"))
        failed.clear()
    assert ann.finished(answer.id) == "ab"
    assert len(failed) == 3
