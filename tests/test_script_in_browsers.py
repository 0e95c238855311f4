"""``wschat.js`` in Chromium: under strict policies, and from another origin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask, Response, g, render_template_string, request
from playwright.sync_api import Browser, Page

from flask_wschat import ChatListener, WebSocket, WSChat
from tests.support.live import HANDLERS, LiveServer, receive, stop
from tests.support.readme import SNIPPETS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(60)]

app = Flask(__name__)
chat = WSChat(app)
chat.listener("/chat")(ChatListener)

TALK = """
  const chat = new WSChat(document.documentElement.dataset.url);
  const show = ({ data }) => (document.title = data);
  const onReset = () => room.say("Hello");
  const room = chat.join("Lobby", { onMessage: show, onReset });
"""
POLICIES = {
    "strict": "default-src 'self'",
    "nonce": "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'",
    "dynamic": (
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic';"
        " connect-src 'self'; require-trusted-types-for 'script'"
    ),
    "another": "default-src 'none'; script-src 'nonce-other'; connect-src 'self'",
    "offline": "default-src 'self'; connect-src 'none'",
}


@app.get("/talk.js")
def talk() -> Response:
    return Response(TALK, content_type="text/javascript")


@app.get("/<any(strict, nonce, dynamic, another, offline):policy>")
def page(policy: str) -> Response:
    g.nonce = "c2VjcmV0"
    html = render_template_string(
        """<!doctype html><html data-url="{{ wschat_url('ChatListener') }}">
        {{ wschat_script(nonce) }}
        {% if nonce %}<script type="module" nonce="{{ nonce }}">{{ talk|safe }}</script>
        {% else %}<script type="module" src="/talk.js"></script>{% endif %}""",
        nonce=None if policy in ("strict", "offline") else g.nonce,
        talk=TALK,
    )
    told = POLICIES[policy].format(nonce=g.nonce)
    return Response(html, headers={"Content-Security-Policy": told})


@chat.route("/rooms/<room>")
def room(ws: WebSocket, room: str) -> None:
    """As the README's."""
    ws.join(room)
    for message in ws:
        chat.broadcast(message, room=room)


@app.get("/readme")
def readme() -> str:
    return render_template_string(SNIPPETS["templates/room.html", "", ""])


@app.get("/favicon.ico")
def icon() -> tuple[str, int]:
    return "", 204


@app.get("/isolated")
def isolated() -> Response:
    """A page that takes from other origins only what says that it may be taken."""
    other = f"http://127.0.0.1:{request.host.partition(':')[2]}"
    html = f"""<!doctype html><script type="module">
      import {{ WSChat }} from "{other}/_wschat/wschat.js";
      document.title = [typeof WSChat, crossOriginIsolated, location.host];
    </script>"""
    return Response(
        html,
        headers={
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Opener-Policy": "same-origin",
        },
    )


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    server = LiveServer(app, *HANDLERS["ours"])
    yield server
    server.stop()
    stop(app)
    assert "Traceback" not in server.log.getvalue(), server.log.getvalue()


@pytest.fixture
def told() -> list[str]:
    """What the page's console says."""
    return []


@pytest.fixture
def opened(chromium: Browser, told: list[str]) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        yield page


@pytest.mark.parametrize("policy", ["strict", "nonce", "dynamic"])
def test_a_strict_policy_needs_no_exception(
    server: LiveServer, opened: Page, told: list[str], policy: str
) -> None:
    opened.goto(f"http://127.0.0.1:{server.port}/{policy}")
    opened.wait_for_function("document.title === 'Hello'")
    assert told == []


@pytest.mark.parametrize(
    ("policy", "refused"), [("another", "script-src"), ("offline", "connect-src")]
)
def test_a_policy_that_forbids_it_does(
    server: LiveServer, opened: Page, told: list[str], policy: str, refused: str
) -> None:
    """So the policies of the test above are looked at."""
    with opened.expect_console_message(lambda message: refused in message.text):
        opened.goto(f"http://127.0.0.1:{server.port}/{policy}")
    assert opened.title() == ""


def test_a_page_of_another_origin_may_import_it(
    server: LiveServer, opened: Page, told: list[str]
) -> None:
    opened.goto(f"http://localhost:{server.port}/isolated")
    opened.wait_for_function("document.title")
    assert opened.title() == f"function,true,localhost:{server.port}"
    assert told == []


def test_the_template_of_the_readme_works(
    server: LiveServer, opened: Page, told: list[str]
) -> None:
    opened.goto(f"http://127.0.0.1:{server.port}/readme")
    opened.wait_for_function("!!globalThis.WSChat")
    with server.connect("/rooms/lobby") as client:
        while not opened.locator("#log").text_content():
            client.send("ping <b>")
            receive(client)
    assert (opened.locator("#log").text_content() or "").startswith("ping <b>")
    assert told == []
