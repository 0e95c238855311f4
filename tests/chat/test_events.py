"""An application's own events: what they take, answer and refuse."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal, TypedDict

import flask
import msgspec
import pytest
from flask import Blueprint, Flask, abort, current_app, got_request_exception

from flask_wschat import (
    ChatListener,
    ConnectionClosed,
    Events,
    WebSocket,
    WSChat,
    event,
)
from flask_wschat.chat.fields import MAX_DEPTH
from tests.support.chat_client import ChatClient, Json
from tests.support.live import Serve


class Asker(ChatClient):
    """One that asks for events."""

    def call(self, kind: str, **fields: Any) -> Any:
        """Return the result of an event; ...: it has none."""
        return self.result(self.ask(kind, **fields))

    def result(self, reply: Json) -> Any:
        assert reply.pop("ok") is True, reply
        assert {"type", "ref"} <= reply.keys() <= {"type", "ref", "result"}
        return reply.get("result", ...)

    def error(self, kind: str, **fields: Any) -> tuple[str, str]:
        """Return code and message of what an event is refused with."""
        return self.refusal(self.ask(kind, **fields))

    def refusal(self, reply: Json) -> tuple[str, str]:
        assert reply["ok"] is False, reply
        return reply["error"]["code"], reply["error"]["message"]

    def send(self, text: str) -> Json:
        """Return the reply to a text."""
        self.client.send(text)
        while (message := self.hear())["type"] != "reply":
            pass
        return message


Meet = Callable[..., Asker]


@pytest.fixture
def meet(app: Flask, chat: WSChat, serve: Serve) -> Meet:
    """Return a function that connects a user to a class of events."""
    made: dict[type[Events], str] = {}
    chat.authenticate(lambda: flask.request.args.get("user"))

    def meet(cls: type[Events], user: str = "ann", **options: Any) -> Asker:
        if cls not in made:
            made[cls] = f"/{len(made)}"
            chat.listener(made[cls], endpoint=made[cls], **options)(cls)
        return Asker(serve(app).connect(f"{made[cls]}?user={user}"))

    return meet


# -- what they take


class Level(enum.Enum):
    EASY = "easy"
    HARD = "hard"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.x > 1000:
            raise ValueError("x is off the board")


class Card(TypedDict):
    suit: Literal["clubs", "hearts"]
    points: list[Point]


class Square(msgspec.Struct):
    file: Annotated[str, msgspec.Meta(pattern="^[a-h]$")]
    rank: Annotated[int, msgspec.Meta(ge=1, le=8)]


class Board(Events):
    @event
    def move(self, room: str, x: float, y: float = 0.5) -> Any:
        return [room, x, y]

    @event("guess")
    def on_guess(self, word: str, level: Literal["easy", "hard"] = "easy") -> Json:
        return {"word": word, "level": level}

    @event()
    def nothing(self) -> None:
        pass

    @event
    def many(
        self,
        flag: bool = False,
        *,
        names: list[str],
        scores: dict[str, int],
        maybe: int | None = None,
        either: int | str = "",
        level: Level = Level.EASY,
        size: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1,
    ) -> Any:
        return [flag, names, scores, maybe, either, level, size]

    @event
    def put(
        self, point: Point, card: Card | None = None, square: Square | None = None
    ) -> Any:
        assert type(point) is Point and point == Point(point.x)
        return {"point": point, "card": card, "square": square}

    @event
    def when(self, day: datetime.date, by: dict[int, str]) -> Any:
        return [day.year, by]

    @event
    def whatever(self, data: Any, more: list[Any] = []) -> Any:  # noqa: B006
        more.append(1)
        return {"data": data, "more": more}


def test_fields_are_arguments_and_what_is_returned_is_the_result(meet: Meet) -> None:
    ann = meet(Board)
    assert ann.call("move", room="a", x=1.5, y=2) == ["a", 1.5, 2.0]
    assert ann.call("move", room="a", x=1, unknown=[1]) == ["a", 1.0, 0.5]
    assert ann.call("guess", word="tea") == {"word": "tea", "level": "easy"}
    assert ann.call("guess", word="tea", level="hard")["level"] == "hard"
    assert ann.call("nothing", x=1) is ...
    given = {"names": ["a"], "scores": {"b": 1}}
    assert ann.call("many", **given) == [False, ["a"], {"b": 1}, None, "", "easy", 1]
    more = {"flag": True, "maybe": 3, "either": 4, "level": "hard", "size": 9}
    assert ann.call("many", **given, **more) == [True, ["a"], {"b": 1}, 3, 4, "hard", 9]
    card = {"suit": "clubs", "points": [{"x": 1.0, "y": 2.0}]}
    put = ann.call("put", point={"x": 1}, card=card, square={"file": "a", "rank": 8})
    assert put["point"] == {"x": 1.0, "y": 0.0}  # msgspec alone leaves y out
    assert put["card"] == card
    assert ann.call("when", day="2026-02-03", by={"7": "x"}) == [2026, {"7": "x"}]
    for _ in range(2):  # a default is the same each time
        assert ann.call("whatever", data=None) == {"data": None, "more": [1]}
    ann.close()


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("move", {"room": "a", "x": "1"}, "x: expected float, got str"),
        ("move", {"room": "a", "x": True}, "x: expected float, got bool"),
        ("move", {"room": "a", "x": None}, "x: expected float, got null"),
        ("move", {"room": 5, "x": 1}, "room: expected str, got int"),
        ("move", {"room": "a"}, "x: missing"),
        ("move", {"room": "a", "x": 10**400}, None),
        ("many", {"names": ["a", 1], "scores": {}}, "names[1]: expected str, got int"),
        ("many", {"names": [], "scores": {"a": 1.5}}, "scores[...]: expected int, got"),
        ("many", {"names": [], "scores": {}, "size": 10}, "size: expected int <= 9"),
        ("many", {"names": [], "scores": {}, "either": 1.5}, "either: expected int"),
        ("put", {"point": [1]}, "point: expected object, got array"),
        ("put", {"point": {"y": 1}}, "point.x: missing"),
        ("put", {"point": {"x": 1001}}, "point: x is off the board"),
        (
            "put",
            {"point": {"x": 1}, "card": {"suit": "clubs", "points": [{"x": "1"}]}},
            "card.points[0].x: expected float, got str",
        ),
        ("when", {"day": "tomorrow", "by": {}}, "day: invalid RFC3339 encoded date"),
        (
            "when",
            {"day": "2026-02-03", "by": {"a": ""}},
            "by: a key: expected int, got",
        ),
    ],
)
def test_a_wrong_field_is_named(
    meet: Meet, kind: str, fields: Json, words: str | None
) -> None:
    ann = meet(Board)
    code, message = ann.error(kind, **fields)
    assert code == "bad_request"
    assert words is None or message.startswith(words), message
    ann.close()


def test_requests_of_no_event_are_refused(meet: Meet) -> None:
    ann = meet(Board)
    assert ann.error("dance") == (
        "unknown_type",
        "no such type of request: 'dance'",
    )
    assert ann.error("join", room="a")[0] == "unknown_type"  # it is no chat
    assert ann.refusal(ann.send('{"type":"move","room":"a","x":1}'))[0] == "bad_request"
    assert ann.refusal(ann.send("junk"))[0] == "bad_json"
    assert ann.ask("ping")["ok"]
    ann.close()


def test_values_that_are_expected_are_named(meet: Meet) -> None:
    ann = meet(Board)
    card = {"suit": "spades", "points": []}
    for kind, fields, words in (
        (
            "guess",
            {"word": "", "level": "q" * 999},
            "level: expected one of 'easy', 'hard'",
        ),
        (
            "many",
            {"names": [], "scores": {}, "level": "x"},
            "level: expected one of 'easy', 'hard'",
        ),
        (
            "put",
            {"point": {"x": 1}, "card": card},
            "card.suit: expected one of 'clubs', 'hearts'",
        ),
    ):
        assert ann.error(kind, **fields) == ("bad_request", words)
    ann.close()


@pytest.mark.parametrize(
    "data",
    [
        '"\\ud800"',
        '{"\\udfff":1}',
        "1e999",
        "[-1e999]",
        "9" * 309,
        "9" * 5000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        "[" * 100_000 + "]" * 100_000,
    ],
    ids=range(9),
)
def test_a_method_gets_nothing_that_it_could_not_say_again(
    meet: Meet, data: str
) -> None:
    ann = meet(Board)
    request = f'{{"type":"whatever","ref":7,"data":{data}}}'
    reply = ann.send(request)
    assert ann.refusal(reply)[0] == "bad_request"
    assert reply["ref"] == (None if len(data) == 200_000 else 7)
    ann.close()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("9" * 308, int("9" * 308)),
        (str(2**63), 2**63),
        (str(-(2**63) - 1), -(2**63) - 1),
        (str(2**64), 2**64),
        ("1e-400", 0.0),
        ("1e16", 1e16),
        ('"\\u0000\\ud83d\\ude00"', "\0\U0001f600"),
        ('{"a":1,"a":2}', {"a": 2}),
        (
            "[" * MAX_DEPTH + "]" * MAX_DEPTH,
            json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH),
        ),
    ],
    ids=range(9),
)
def test_what_it_gets_is_what_was_sent(meet: Meet, data: str, value: Any) -> None:
    ann = meet(Board)
    reply = ann.send(f'{{"type":"whatever","ref":7,"data":{data}}}')
    assert ann.result(reply)["data"] == value
    ann.close()


# -- what they answer


class Odd:
    """Only the application's own JSON knows it."""

    def __html__(self) -> str:
        return "<odd>"


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


class Answering(Events):
    @event
    def known(self) -> Any:
        return {
            "odd": Odd(),
            "when": datetime.datetime(2026, 2, 3, tzinfo=datetime.timezone.utc),
            "price": decimal.Decimal("1.50"),
            "level": Level.HARD,
            "point": Point(1),
            "square": Square("a", 1),
            "set": {1},
        }

    @event
    def false(self) -> bool:
        return False

    @event
    def strange(self, what: str) -> Any:
        return {
            "unknown": [object()],
            "nan": {"a": float("nan")},
            "infinity": [float("inf")],
            "half": "\ud800",
            "deep": nested(9999),
            "generator": (n for n in range(3)),
        }[what]


def test_results_are_what_msgspec_or_the_application_makes_of_them(meet: Meet) -> None:
    ann = meet(Answering)
    assert ann.call("false") is False
    assert ann.call("known") == {
        "odd": "<odd>",
        "when": "2026-02-03T00:00:00Z",
        "price": "1.50",
        "level": "hard",
        "point": {"x": 1, "y": 0.0},
        "square": {"file": "a", "rank": 1},
        "set": [1],
    }
    ann.close()


@pytest.mark.parametrize(
    "kind", ["unknown", "nan", "infinity", "half", "deep", "generator"]
)
def test_a_result_that_json_has_not_is_an_error_of_the_server(
    meet: Meet, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    ann = meet(Answering)
    assert ann.error("strange", what=kind) == ("internal", "an error in the server")
    assert "Exception in the event 'strange' of /0 (user ann, connection" in caplog.text
    assert ann.call("false") is False
    ann.close()


# -- what they refuse, and errors


class Refusing(Events):
    @event
    def halt(self, status: int, why: str | None = None) -> None:
        abort(status, why)

    @event
    def answer(self, status: int) -> None:
        abort(flask.Response("no", status))

    @event
    def forbid(self, why: str = "") -> None:
        raise PermissionError(why)

    @event
    def half(self) -> None:
        raise PermissionError("no \u00e9\ud800")

    @event
    def fail(self, what: str) -> None:
        if what == "closed":
            raise ConnectionClosed(1001)  # of somebody else's connection
        raise {"value": ValueError, "type": TypeError, "key": KeyError}[what]("mine")

    @event
    def recurse(self) -> None:
        self.recurse()

    @event
    def where(self) -> Any:
        return [current_app.name, self.ws.user, sorted(self.ws.rooms)]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "forbidden"),
        (413, "too_big"),
        (422, "bad_request"),
        (429, "rate_limited"),
    ],
)
def test_an_abort_refuses(
    meet: Meet, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    ann = meet(Refusing)
    assert ann.error("halt", status=status, why="because") == (code, "because")
    assert ann.error("halt", status=status)[0] == code
    assert ann.error("answer", status=status)[0] == code
    assert ann.error("forbid", why="not you") == ("forbidden", "not you")
    assert ann.error("forbid")[0] == "forbidden"
    assert ann.error("half") == ("forbidden", "no \u00e9?")
    assert not caplog.records
    ann.close()


def test_an_exception_is_told_once_and_the_connection_stays(
    app: Flask, meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[BaseException] = []

    def tell(sender: Flask, exception: BaseException, **more: Any) -> None:
        told.append(exception)

    ann = meet(Refusing)
    with got_request_exception.connected_to(tell, app):
        for kind in ("value", "type", "key", "closed"):
            assert ann.error("fail", what=kind)[0] == "internal"
        assert ann.error("halt", status=500)[0] == "internal"
        assert ann.error("recurse")[0] == "internal"
    kinds = [type(error).__name__ for error in told]
    assert kinds[:4] == ["ValueError", "TypeError", "KeyError", "ConnectionClosed"]
    assert kinds[4:] == ["InternalServerError", "RecursionError"]
    lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(lines) == 6
    for line in lines:
        assert line.startswith("Exception in the event '")
        assert line.endswith(f"of /0 (user ann, connection {ann.hello['id']})")
    assert ann.call("where") == [app.name, "ann", []]
    ann.close()


def test_what_a_client_sends_is_no_line_in_the_log(
    meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    ann = meet(Board)
    for text in ("{", "[]", "", "1", '{"ref":1}', '{"ref":1,"type":[]}', "\x00"):
        assert ann.send(text)["ok"] is False
    values: tuple[Any, ...] = (
        None,
        [],
        {},
        -1,
        1e300,
        "x" * 5000,
        "\u2028",
        [[[]]],
        {"a": {}},
    )
    for value in values:
        for field in ("room", "x", "y"):
            ann.ask("move", **{"room": "a", "x": 1, field: value})
    assert not caplog.records
    ann.close()


# -- how often, and whether at all


class Limited(Events):
    @event(limit=(1e-3, 3))
    def seldom(self) -> int:
        return 1

    @event("other", limit=(1e-3, 1))
    def seldom_too(self) -> int:
        return 2

    @event
    def often(self) -> int:
        return 3


def test_an_event_has_a_limit_of_its_own_for_each_user(meet: Meet) -> None:
    ann, tab, ben = meet(Limited), meet(Limited), meet(Limited, "ben")
    assert [ann.call("seldom"), tab.call("seldom"), ann.call("seldom")] == [1, 1, 1]
    for _ in range(30):  # that is no flood
        error = tab.ask("seldom")["error"]
        assert error["code"] == "rate_limited" and 900 < error["retry_after"] <= 1000
        assert error["message"].startswith("too many of 'seldom': wait ")
    assert [ann.call("other"), ann.call("often"), ben.call("seldom")] == [2, 3, 1]
    for peer in (ann, tab, ben):
        peer.close()


class Guarded(ChatListener):
    anonymous = "say"
    asked: ClassVar[list[tuple[str | None, str, Json]]] = []

    def before_event(self, ws: WebSocket, name: str, request: Json) -> Any:
        assert ws is self.ws and current_app
        self.asked.append((ws.user, name, request))
        if name == "move":
            abort(401, "log in")
        if name == "broken":
            return "yes"  # which says nothing
        return False if name == "say" else None

    @event
    def move(self) -> None:
        raise AssertionError

    @event
    def broken(self) -> str:
        return "done"


def test_each_request_is_asked_about_before(meet: Meet) -> None:
    Guarded.asked.clear()
    ann = meet(Guarded)
    assert ann.error("move") == ("unauthorized", "log in")
    assert ann.call("broken") == "done"
    assert ann.ask("join", room="Lobby", more=[1])["ok"]
    assert ann.error("say", room="Lobby", data=1, mid="1")[0] == "forbidden"
    assert ann.error("dance")[0] == "unknown_type"
    assert [(user, name) for user, name, _ in Guarded.asked] == [
        ("ann", name) for name in ("move", "broken", "join", "say")
    ]
    assert Guarded.asked[2][2] == {
        "type": "join",
        "ref": 3,
        "room": "Lobby",
        "more": [1],
    }
    ann.close()


# -- where they come from


class Moves:
    """A mix-in that is no listener."""

    ws: WebSocket

    @event
    def move(self, x: int) -> Any:
        return ["mixed in", x]

    @event("turn", limit=(1e-3, 1))
    def on_turn(self) -> str:
        return "mixed in"


class Game(Moves, ChatListener):
    anonymous = "say"

    @event
    def guess(self, word: str) -> str:
        return word

    @event
    def gone(self) -> None: ...


class OtherGame(Game):
    def move(self, x: str, y: str = "") -> Any:  # type: ignore[override]
        return ["overridden", x, y]

    gone = None  # type: ignore[assignment]

    @event("turn")
    def turn_over(self) -> str:
        return "another"


def test_events_of_a_mix_in_stand_beside_those_of_the_chat(meet: Meet) -> None:
    ann = meet(Game)
    assert ann.call("move", x=1) == ["mixed in", 1]
    assert ann.call("turn") == "mixed in"
    assert ann.error("turn")[0] == "rate_limited"
    assert ann.call("gone") is ...
    assert ann.ask("join", room="a")["ok"]
    ann.close()


def test_a_subclass_overrides_events_and_takes_them_away(meet: Meet) -> None:
    ann = meet(OtherGame)
    assert ann.call("move", x="a") == ["overridden", "a", ""]
    assert ann.error("move", x=1)[0] == "bad_request"
    assert [ann.call("turn"), ann.call("turn")] == ["another", "another"]
    assert ann.error("gone")[0] == "unknown_type"
    assert ann.call("guess", word="tea") == "tea"
    assert ann.ask("ping")["ok"]
    ann.close()


def test_a_blueprint_has_them_too(app: Flask, chat: WSChat, serve: Serve) -> None:
    blueprint = Blueprint("games", __name__, url_prefix="/games")
    opened = []

    @chat.listener("/<int:number>", blueprint=blueprint)
    class Numbered(Moves, Events):
        def on_open(self, ws: WebSocket, number: int) -> None:
            assert self.ws is ws
            self.number = number
            opened.append(flask.request.path)

        @event
        def which(self) -> int:
            return self.number

    app.register_blueprint(blueprint)
    ann = Asker(serve(app).connect("/games/7"))
    assert (ann.call("which"), ann.call("move", x=1)) == (7, ["mixed in", 1])
    assert opened == ["/games/7"]
    ann.close()


def test_hello_comes_before_what_a_listener_sends(meet: Meet) -> None:
    class Greeting(Events):
        def on_open(self, ws: WebSocket, *args: Any, **url_args: Any) -> None:
            ws.send_json({"type": "welcome", "to": ws.user})

    ann = meet(Greeting)
    assert ann.hello["user"] == "ann"
    assert ann.hello["limits"].keys() == {"message", "depth", "rate"}
    assert ann.hear() == {"type": "welcome", "to": "ann"}
    ann.close()


# -- mistakes, told when the class is made


def takes(**hints: Any) -> Any:
    """Return a method whose parameters have these hints."""
    names: dict[str, Any] = {}
    exec(f"def move({', '.join(['self', *hints])}): ...", names)
    names["move"].__annotations__ = hints
    return names["move"]


async def waits(self: Any) -> None: ...


async def waits_and_yields(self: Any) -> AsyncIterator[int]:
    yield 1


def yields(self: Any) -> Iterator[int]:
    yield 1


def many(self: Any, *cards: int) -> None: ...
def more(self: Any, **cards: int) -> None: ...
def untyped(self: Any, x: int, y) -> None: ...  # type: ignore[no-untyped-def]
def unknown(self: Any, x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def nobody() -> None: ...
def forgetful(x: int, y: int) -> None: ...


@pytest.mark.parametrize(
    "around", [staticmethod, classmethod, property, functools.cached_property]
)
def test_what_is_no_method_any_more_is_refused(around: Callable[..., Any]) -> None:
    def move(self: Any, x: int) -> None: ...

    with pytest.raises(TypeError, match=r"Mine\.move is an event that is no method"):
        type("Mine", (Events,), {"move": around(event(move))})


class Card2:
    """Of no kind that JSON could be."""


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (waits, "Mine.move is async, and would never run: write def"),
        (waits_and_yields, "Mine.move is async"),
        (yields, "Mine.move has a yield, and would never run: use return"),
        (many, "Mine.move takes *cards: name each field"),
        (more, "Mine.move takes **cards: name each field"),
        (untyped, "Mine.move: y has no type hint: write one, as y: int, or y: Any"),
        (unknown, "Mine.move: its type hints cannot be read: name 'Nowhere' is not"),
        (nobody, "Mine.move has no self: write def move(self, ...)"),
        (forgetful, "Mine.move has no self: write def move(self, ...)"),
        (takes(ref=int), "Mine.move: ref is a field of each request: call the param"),
        (takes(type=str), "Mine.move: type is a field of each request"),
        (takes(ws=WebSocket), "Mine.move: ws cannot be a WebSocket, as JSON has no"),
        (takes(x=list[Card2 | None]), "Mine.move: x cannot be a Card2, as JSON has no"),
        (takes(x=dict[str, Card2]), "Mine.move: x cannot be a Card2"),
        (takes(x=list[int] | set[int]), "Mine.move: x cannot be checked: Type unions"),
        (takes(x=Annotated[str, msgspec.Meta(ge=1)]), "x cannot be checked: "),
        (takes(x=object), "Mine.move: x cannot be a object"),
    ],
)
def test_a_method_that_cannot_be_called_is_an_error(method: Any, words: str) -> None:
    with pytest.raises(TypeError) as told:
        type("Mine", (Events,), {"move": event("move")(method)})
    assert words in str(told.value)
    # A mix-in is checked where it is used.
    mixed = type("Mixed", (), {"move": event("move")(method)})
    with pytest.raises(TypeError) as told:
        type("Mine", (mixed, ChatListener), {})
    assert words in str(told.value)


def test_a_generator_may_be_run_by_its_decorator(meet: Meet) -> None:
    """Who wraps it knows how; what did not run is told when it is called."""

    def listed(method: Callable[..., Iterator[int]]) -> Callable[..., list[int]]:
        @functools.wraps(method)
        def call(*values: Any) -> list[int]:
            return list(method(*values))

        return call

    class Counter(Events):
        @event
        @listed
        def count(self, up_to: int) -> Iterator[int]:
            yield from range(up_to)

    assert meet(Counter).call("count", up_to=3) == [0, 1, 2]


@pytest.mark.parametrize("name", ["join", "say", "hello", "reply", "stream", "message"])
def test_a_name_of_the_protocol_s_own_is_refused(name: str) -> None:
    def method(self: Any) -> None: ...

    for base in (Events, ChatListener):
        with pytest.raises(
            TypeError, match=f"Mine.mine: '{name}' is a name of the pro"
        ):
            type("Mine", (base,), {"mine": event(name)(method)})


def test_two_events_of_one_name_are_an_error() -> None:
    with pytest.raises(TypeError, match="a and b are both the event 'move': give one"):

        class Mine(Events):
            @event("move")
            def a(self) -> None: ...

            @event("move")
            def b(self) -> None: ...


@pytest.mark.parametrize(
    "name", ["emit", "ws", "on_message", "before_event", "can_say"]
)
def test_a_method_that_is_called_otherwise_is_no_event(name: str) -> None:
    def method(self: Any) -> None: ...

    with pytest.raises(TypeError, match=f"{name} has another meaning: call the"):
        type("Mine", (ChatListener,), {name: event("mine")(method)})


@pytest.mark.parametrize("name", ["_join", "_attach", "_chat", "_begin", "_read"])
def test_a_subclass_does_not_replace_what_its_base_needs(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name}: the name is one of"):
        type("Mine", (ChatListener,), {name: lambda self: 1})


def test_an_override_is_checked_like_what_it_overrides() -> None:
    def move(self: Any, x) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(TypeError, match=r"Mine\.move: x has no type hint"):
        type("Mine", (Game,), {"move": move})
    with pytest.raises(TypeError, match=r"Mine\.move is no method"):
        type("Mine", (Game,), {"move": 5})


anyhow: Any = event  # also as its types forbid


@pytest.mark.parametrize(
    ("mark", "error", "words"),
    [
        (lambda: anyhow(5), TypeError, "@event stands above a method"),
        (lambda: anyhow(staticmethod(nobody)), TypeError, "above a method"),
        (lambda: event(Card2), TypeError, "above a method"),
        (lambda: anyhow("a")("b"), TypeError, "above a method"),
        (lambda: event(""), ValueError, "an event's name has 1 to 100"),
        (lambda: event("a\nb"), ValueError, "an event's name"),
        (lambda: event("x" * 101), ValueError, "an event's name"),
        (
            lambda: anyhow(limit=5),
            ValueError,
            "limit is (events a second, events at on",
        ),
        (lambda: event(limit=(0, 1)), ValueError, "unlike (0, 1)"),
        (lambda: anyhow("a", limit="fast"), ValueError, "unlike 'fast'"),
    ],
)
def test_a_decorator_says_what_it_wants(
    mark: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as told:
        found = mark()
        found(nobody)
    assert words in str(told.value)


def test_a_decorated_method_that_did_not_run_is_an_error(
    meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    def quietly(function: Any) -> Any:
        return lambda self: function(self)

    def named(function: Any) -> Any:
        found = quietly(function)
        found.__name__ = "move"
        return found

    class Mine(Events):
        move = event(named(waits))

    ann = meet(Mine)
    assert ann.error("move")[0] == "internal"
    assert "is async or has a yield, and did not run: write def" in caplog.text
    ann.close()


def test_hints_may_name_what_is_local(meet: Meet) -> None:
    @dataclasses.dataclass
    class Here:
        x: int

    class Mine(Events):
        @event
        def move(self, to: Here) -> int:
            return to.x

    ann = meet(Mine)
    assert ann.call("move", to={"x": 3}) == 3
    ann.close()


# -- what a class says that it sends


class Moved(TypedDict):
    x: float
    who: str


class Declaring(Events):
    emits: ClassVar[Any] = {"moved": Moved, "put": Point, "square": Square}

    @event
    def move(self, data: dict[str, Any], name: str = "moved") -> None:
        self.emit(name, **data)


def test_what_is_emitted_is_as_it_was_declared(
    meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    ann = meet(Declaring)
    beside = {"room": None, "from": "ann"}
    assert ann.call("move", data={"x": 1, "who": "ann"}) is ...
    assert ann.expect("moved") == {"type": "moved", **beside, "x": 1, "who": "ann"}
    assert ann.call("move", data={"any": 1}, name="other") is ...
    assert ann.expect("other")["any"] == 1
    for kind, data, words in (
        ("moved", {"x": "1", "who": "ann"}, "Expected `float`, got `str` - at `$.x`"),
        ("moved", {"x": 1}, "Object missing required field `who`"),
        ("square", {"file": "z", "rank": 1}, "'square' is declared otherwise: "),
    ):
        assert ann.error("move", data=data, name=kind)[0] == "internal"
        assert words in caplog.text
    ann.close()


class Placed(TypedDict):
    x: int
    room: str


@pytest.mark.parametrize(
    ("emits", "words"),
    [
        ([Moved], "Mine.emits is a dict, as "),
        ({"join": Moved}, "Mine.emits: 'join' is no name of an event of yours"),
        ({5: Moved}, "Mine.emits: 5 is no name"),
        ({"moved": int}, "Mine.emits['moved'] is a TypedDict, a dataclass or"),
        ({"moved": Card2}, "Mine.emits['moved'] cannot be a Card2"),
        ({"moved": "Moved"}, "Mine.emits['moved'] cannot be checked"),
        (
            {"moved": Placed},
            "Mine.emits['moved']: 'room' is set for you: give the field another name",
        ),
    ],
)
def test_a_declaration_that_is_none_is_an_error(emits: Any, words: str) -> None:
    with pytest.raises(TypeError) as told:
        type("Mine", (Events,), {"emits": emits})
    assert words in str(told.value)
