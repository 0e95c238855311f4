"""Who wants more connections than a user, or an address, may have."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any

import pytest
from flask import Flask, abort, request
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.errors import BackendError
from flask_wschat.hub.places import Places, network_of
from flask_wschat.testing import Refused, WSChatClient
from tests.attacks.raw import send_opening
from tests.support.live import LiveServer, Serve, closed
from tests.support.waiting import DEADLINE, eventually

LIMIT = 3


def make(app: Flask, **settings: Any) -> WSChat:
    for name, value in settings.items():
        app.config[f"WSCHAT_{name}"] = value
    chat = WSChat(app)
    chat.authenticate(lambda: request.args.get("user"))
    chat.listener("/listen")(Listener)

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    return chat


def taken(chat: WSChat) -> Any:
    """Return what of the limits is taken, and by whom."""
    places = chat._hub().places
    assert places is not None
    return places._taken or places._held


@pytest.fixture
def proxied(app: Flask, serve: Serve) -> LiveServer:
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    make(app, MAX_CONNECTIONS_PER_ADDRESS=LIMIT)
    return serve(app)


def come_from(server: LiveServer, address: str) -> Any:
    headers = {"X-Forwarded-For": address}
    return server.connect("/listen", additional_headers=headers)


def test_an_address_has_as_many_as_it_may(
    proxied: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        first = [
            stack.enter_context(come_from(proxied, "192.0.2.1")) for _ in range(LIMIT)
        ]
        for _ in range(20):
            with pytest.raises(InvalidStatus) as refused:
                come_from(proxied, "192.0.2.1")
            answer = refused.value.response
            assert answer.status_code == 429
            assert answer.headers["Retry-After"] == "5"
            assert b"from your address" in answer.body
        stack.enter_context(come_from(proxied, "192.0.2.2"))
        first[0].close()

        def comes_again() -> bool:
            with contextlib.suppress(InvalidStatus):
                stack.enter_context(come_from(proxied, "192.0.2.1"))
                return True
            return False

        eventually(comes_again)
    [line] = caplog.messages
    assert "on /listen: 192.0.2.1 has WSCHAT_MAX_CONNECTIONS_PER_ADDRESS = 3" in line
    assert "ProxyFix" in line


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        (["2001:db8::1", "2001:db8:0:0:ffff::2", "2001:DB8::3"], "2001:db8:0:1::1"),
        (["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"], "::ffff:192.0.2.2"),
        (["fe80::1%eth0", "fe80::2%eth0", "fe80::3"], "fe81::1"),
        (["unknown"] * 3, "192.0.2.1:80"),
        (["192.0.2.1:4001", "192.0.2.1:4002", "192.0.2.1"], "192.0.2.2:4001"),
        (["[2001:db8::1]:4001", "[2001:db8::2]:4002", "2001:db8::3"], "[::1]:4001"),
    ],
)
def test_an_address_is_known_however_it_is_written(
    proxied: LiveServer, addresses: list[str], other: str
) -> None:
    with contextlib.ExitStack() as stack:
        for address in addresses:
            stack.enter_context(come_from(proxied, address))
        with pytest.raises(InvalidStatus):
            come_from(proxied, addresses[0])
        stack.enter_context(come_from(proxied, other))


def test_a_network_is_the_first_half_of_an_ipv6_address() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network_of("::1") == "::/64"
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"


def test_a_client_without_an_address_is_not_counted_and_that_is_said_once(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a Unix socket: gunicorn has "" there, pywsgi nothing."""
    make(app, MAX_CONNECTIONS_PER_ADDRESS=1)
    inner = app.wsgi_app

    def nameless(environ: Any, start_response: Any) -> Any:
        environ.pop("REMOTE_ADDR")
        return inner(environ, start_response)

    app.wsgi_app = nameless  # type: ignore[method-assign]
    client = WSChatClient(app)
    with client.connect("/listen"), client.connect("/listen"):
        [line] = caplog.messages
        assert "limits nobody" in line and "Unix socket" in line and "ProxyFix" in line


def test_a_user_has_as_many_as_they_may(
    app: Flask, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make(app, MAX_CONNECTIONS_PER_USER=LIMIT)
    server = serve(app)
    with contextlib.ExitStack() as stack:
        for path in ("/listen", "/view", "/listen"):
            stack.enter_context(server.connect(f"{path}?user=ann"))
        for path in ("/listen", "/view"):
            with pytest.raises(InvalidStatus) as refused:
                server.connect(f"{path}?user=ann")
            assert refused.value.response.status_code == 429
            assert b"of this user" in refused.value.response.body
        for other in ("?user=ben", "", "", "", ""):
            stack.enter_context(server.connect(f"/listen{other}"))
        # Where one is thrown out, the next one comes in.
        assert chat.disconnect_user("ann") == LIMIT
        eventually(lambda: not chat.is_online("ann"))
        stack.enter_context(server.connect("/listen?user=ann"))
    [line] = caplog.messages
    assert "user ann has WSCHAT_MAX_CONNECTIONS_PER_USER = 3" in line
    eventually(lambda: not taken(chat), "no place is taken")


def test_one_who_is_refused_holds_no_place_of_another_kind(app: Flask) -> None:
    chat = make(
        app,
        MAX_CONNECTIONS=3,
        MAX_CONNECTIONS_PER_ADDRESS=3,
        MAX_CONNECTIONS_PER_USER=1,
    )
    held: list[int] = []
    places = chat._hub().places
    assert places is not None

    @app.after_request  # while it may wait, others are not to find the server full
    def note(response: Any) -> Any:
        held.append(len(places._held))
        return response

    client = WSChatClient(app)
    with client.connect("/listen?user=ann"):
        for _ in range(5):
            with pytest.raises(Refused, match="429"):
                client.connect("/listen?user=ann").__enter__()
        assert held == [1] * 6
        with (
            client.connect("/listen"),
            client.connect("/listen"),
            pytest.raises(Refused, match="429"),  # the address comes first
        ):
            client.connect("/listen").__enter__()
    assert not taken(chat)


def test_a_server_that_answers_first_closes_with_1013(app: Flask, serve: Serve) -> None:
    chat = make(app, MAX_CONNECTIONS_PER_ADDRESS=1)
    server = serve(app, "stock")
    with server.connect("/listen"):
        code, reason = closed(server.connect("/listen"))
        assert (code, "429" in reason) == (1013, True)
    eventually(lambda: not taken(chat), "no place is taken")


def raise_(error: BaseException) -> Any:
    raise error


ENDS: dict[str, Callable[[], Any]] = {
    "abort": lambda: abort(401),
    "error": lambda: raise_(ZeroDivisionError()),
    "exit": lambda: raise_(SystemExit()),
    "interrupt": lambda: raise_(KeyboardInterrupt()),
    "storage": lambda: raise_(BackendError("down")),
    "closed": lambda: raise_(TimeoutError()),
}
PLACES = ["before", "user", "make", "open", "view", "message", "after", "teardown"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", PLACES)
def test_places_are_given_back_whatever_happens(
    app: Flask, end: str, where: str
) -> None:
    """In a thread of a threaded server, as the test client's requests are."""
    app.config["WSCHAT_MAX_CONNECTIONS_PER_USER"] = 1
    app.config["WSCHAT_MAX_CONNECTIONS_PER_ADDRESS"] = 1
    app.config["WSCHAT_MAX_CONNECTIONS"] = 1
    chat = WSChat(app)
    fails = True

    def maybe(here: str) -> None:
        if fails and here == where:
            ENDS[end]()

    @chat.authenticate
    def who() -> str:
        maybe("user")
        return "ann"

    @chat.listener("/listen")
    class Failing(Listener):
        def __init__(self) -> None:
            maybe("make")

        def on_open(self, ws: WebSocket) -> None:
            maybe("open")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            maybe("message")
            ws.close()

    @chat.route("/view")
    def view(ws: WebSocket) -> None:
        maybe("view")
        ws.receive()

    @app.before_request
    def before() -> None:
        maybe("before")

    @app.after_request
    def after(response: Any) -> Any:
        maybe("after")
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        maybe("teardown")

    client = WSChatClient(app)
    for path in ("/listen", "/view"):
        fails = True
        # What it comes to is another test's business; here only that it is over.
        with contextlib.suppress(BaseException), client.connect(path) as ws:
            ws.send("hello")
            ws.assert_closed()
        client.errors.clear()
        eventually(lambda: not taken(chat), lambda: f"no place: {taken(chat)}")
        fails = False
        with client.connect(path) as ws:
            ws.send("hello")
            ws.assert_closed()
    assert not taken(chat)


def test_clients_that_leave_in_the_middle_give_their_places_back(
    app: Flask, serve: Serve
) -> None:
    chat = make(app, MAX_CONNECTIONS_PER_ADDRESS=100, MAX_CONNECTIONS_PER_USER=100)
    server = serve(app)
    for path in ("/listen?user=ann", "/view?user=ann", "/none", "/listen"):
        for _ in range(20):
            with server.socket() as sock:
                send_opening(sock, path, host=f"127.0.0.1:{server.port}")
    for code in (101, 404):
        with server.socket() as sock:
            path = "/listen" if code == 101 else "/none"
            send_opening(sock, path, host=f"127.0.0.1:{server.port}")
            answer = HTTPResponse(sock)
            answer.begin()
            assert answer.status == code
    eventually(lambda: not taken(chat), "no place is taken")


@pytest.mark.parametrize("limit", ["PER_USER", "PER_ADDRESS"])
def test_threads_at_the_same_time_take_no_place_twice(app: Flask, limit: str) -> None:
    chat = make(app, **{f"MAX_CONNECTIONS_{limit}": LIMIT})
    client = WSChatClient(app)
    begin, end = threading.Barrier(16), threading.Event()
    opened: list[int] = []
    refused: list[int] = []

    def come() -> None:
        begin.wait(DEADLINE)
        try:
            with client.connect("/listen", user="ann"):
                opened.append(1)
                end.wait(DEADLINE)
        except Refused:
            refused.append(1)

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(opened) + len(refused) == 16)
        assert len(opened) == LIMIT
    finally:
        end.set()
        for thread in threads:
            thread.join()
    eventually(lambda: not taken(chat), "no place is taken")


def test_without_a_limit_nothing_is_counted(app: Flask) -> None:
    assert make(app)._hub().places is None


def test_those_of_a_loop_that_ended_are_forgotten(app: Flask, serve: Serve) -> None:
    """Each server of a test has a loop of its own."""
    chat = make(app, MAX_CONNECTIONS=1)
    for _ in range(3):
        server = LiveServer(app)
        client = server.connect("/listen")
        server.stop()
        with pytest.raises(ConnectionClosed):
            client.recv(DEADLINE)
    eventually(lambda: not taken(chat), "no place is taken")


HOLDERS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), HOLDERS, st.sampled_from("ab")),
        st.tuples(st.just("hand over"), HOLDERS, st.integers(6, 9)),
        st.tuples(st.just("give back"), st.integers(0, 9), st.none()),
    )
)


@given(STEPS)
def test_what_is_taken_is_what_is_held(steps: list[Any]) -> None:
    places = Places()
    held: dict[int, set[str]] = {}
    for step, holder, other in steps:
        if step == "take":
            having = sum(other in keys for keys in held.values())
            has = other in held.get(holder, set())
            assert places.take(holder, (other, ""), 2) == (has or having < 2)
            if has or having < 2:
                held.setdefault(holder, set()).add(other)
        elif step == "hand over" and other not in held:
            places.hand_over(holder, other)
            if keys := held.pop(holder, None):
                held[other] = keys
        elif step == "give back":
            places.give_back(holder)
            held.pop(holder, None)
        for name in "ab":
            having = sum(name in keys for keys in held.values())
            assert places._taken.get((name, ""), 0) == having
    for holder in list(held):
        places.give_back(holder)
    assert not places._taken and not places._held
