"""``/_wschat/wschat.js`` as caches and pages get it, and what templates say of it."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, render_template_string, request, session
from markupsafe import Markup
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BuildError
from werkzeug.test import Client, TestResponse

import flask_wschat
from flask_wschat import Listener, WebSocket, WSChat
from flask_wschat.testing import WSChatClient

FOLDER = Path(flask_wschat.__file__).parent / "static"
SOURCE = (FOLDER / "wschat.js").read_bytes()
VERSION = hashlib.sha256(SOURCE).hexdigest()[:16]
GLOBAL = SOURCE + b"\nglobalThis.WSChat = WSChat;\n"
AS_GLOBAL = hashlib.sha256(GLOBAL).hexdigest()[:16]
PATH = "/_wschat/wschat.js"
FOREVER = "public, max-age=31536000, immutable"


def get(app: Flask, path: str = PATH, /, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get(path, headers=named)


def rendered(app: Flask, template: str, path: str = "/", **values: Any) -> str:
    with app.test_request_context(path):
        return render_template_string(template, **values)


# ---- the files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("wschat.js", "text/javascript"), ("wschat.d.ts", "text/plain")]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_may_be_imported_and_kept_by_anybody(
    app: Flask, chat: WSChat, name: str, kind: str, method: str
) -> None:
    answer = app.test_client().open(f"/_wschat/{name}", method=method)
    data = (FOLDER / name).read_bytes()
    assert answer.status_code == 200
    assert answer.data == (data if method == "GET" else b"")
    assert answer.content_length == len(data)
    assert answer.content_type == f"{kind}; charset=utf-8"
    assert answer.get_etag() == (hashlib.sha256(data).hexdigest()[:16], False)
    headers = answer.headers
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in headers
    assert headers["Vary"] == "Accept-Encoding"  # and no cookie


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (f"?v={VERSION}", FOREVER),
        (f"?v={VERSION}&x=1", FOREVER),
        *(
            (query, "no-cache")
            for query in (
                "?v=",
                "?v=0123456789abcdef",
                f"?v={VERSION}0",
                f"?v={VERSION[:-1]}",
                f"?v={VERSION.upper()}x",
                f"?v={VERSION}&v=0123456789abcdef",
                f"?V={VERSION}",
                f"?v=%00{VERSION}",
                f"?v={VERSION}%0d%0aSet-Cookie:a=b",
                "?v=" + "f" * 4000,
                f"?{VERSION}",
            )
        ),
    ],
)
def test_only_what_it_is_is_kept_for_ever(
    app: Flask, chat: WSChat, query: str, kept: str
) -> None:
    answer = get(app, PATH + query)
    assert (answer.status_code, answer.data) == (200, SOURCE)
    assert answer.headers["Cache-Control"] == kept
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "asked", ["gzip", "br, GZIP;q=0.5", "*", "deflate, gzip;q=1.0, *;q=0"]
)
@pytest.mark.parametrize("name", ["wschat.js", "wschat.d.ts"])
def test_who_can_unpack_it_gets_a_third(
    app: Flask, chat: WSChat, name: str, asked: str
) -> None:
    path = f"/_wschat/{name}"
    answer = get(app, path, Accept_Encoding=asked)
    data = (FOLDER / name).read_bytes()
    assert gzip.decompress(answer.data) == data
    assert len(answer.data) < len(data) / 2
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    etag, weak = answer.get_etag()
    assert etag != get(app, path).get_etag()[0]
    assert not weak
    packed = {"Accept_Encoding": asked, "If_None_Match": f'"{etag}"'}
    assert get(app, path, **packed).status_code == 304
    assert get(app, path, If_None_Match=f'"{etag}"').data == data
    head = app.test_client().head(path, headers={"Accept-Encoding": asked})
    assert head.content_length == len(answer.data)


@pytest.mark.parametrize(
    "asked", ["", "br", "gzip;q=0", "identity", "gzip;q=x", "\xff"]
)
def test_others_get_it_as_it_is(app: Flask, chat: WSChat, asked: str) -> None:
    answer = get(app, PATH, Accept_Encoding=asked)
    assert (answer.status_code, answer.data) == (200, SOURCE)
    assert "Content-Encoding" not in answer.headers


def test_what_makes_the_name_global_is_another_file(app: Flask, chat: WSChat) -> None:
    for query in ("?global", f"?global=&v={AS_GLOBAL}", f"?v={VERSION}&global"):
        answer = get(app, PATH + query)
        assert answer.data == GLOBAL
        assert answer.get_etag() == (AS_GLOBAL, False)
        told = FOREVER if AS_GLOBAL in query else "no-cache"
        assert answer.headers["Cache-Control"] == told
    assert get(app, f"{PATH}?v={AS_GLOBAL}").headers["Cache-Control"] == "no-cache"
    types = get(app, "/_wschat/wschat.d.ts?global").data
    assert types == (FOLDER / "wschat.d.ts").read_bytes()


def test_the_version_of_one_file_is_not_that_of_the_other(
    app: Flask, chat: WSChat
) -> None:
    answer = get(app, f"/_wschat/wschat.d.ts?v={VERSION}")
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "asked",
    [
        f'"{VERSION}"',
        f'W/"{VERSION}"',  # as a proxy that compresses has made it
        f'"older", "{VERSION}" , W/"other"',
        "*",
    ],
)
@pytest.mark.parametrize("query", ["", f"?v={VERSION}"])
def test_who_has_it_is_told_so(
    app: Flask, chat: WSChat, asked: str, query: str
) -> None:
    answer = get(app, PATH + query, If_None_Match=asked)
    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.get_etag() == (VERSION, False)
    assert answer.headers["Cache-Control"] == (FOREVER if query else "no-cache")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"If_None_Match": '"older", "others"'},
        {"If_None_Match": VERSION[:-1]},
        {"If_None_Match": '"' * 5000},
        {"If_Modified_Since": "Fri, 31 Dec 2100 23:59:59 GMT"},
        # A part of it would have to be kept apart from the whole, to save 6 kB.
        {"Range": "bytes=0-3"},
        {"Range": "bytes=0-1,5-6,9-"},
        {"Range": "bytes=999999999-"},
        {"Range": "lines=1-2", "If_Range": f'"{VERSION}"'},
    ],
)
def test_all_others_get_all_of_it(
    app: Flask, chat: WSChat, headers: dict[str, str]
) -> None:
    answer = get(app, PATH, **headers)
    assert (answer.status_code, answer.data) == (200, SOURCE)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/wschat.d.js",
        "/WSCHAT.JS",
        "/wschat.js/",
        "/wschat.js%00",
        "/wschat.js%2f..",
        "/../static/wschat.js",
        "/..%2f__init__.py",
        "/%2e%2e/extension.py",
        "/..\\extension.py",
        "//etc/passwd",
        "/wschat.js;a=b",
        "/.",
    ],
)
def test_nothing_else_is_served(app: Flask, chat: WSChat, path: str) -> None:
    assert get(app, f"/_wschat{path}").status_code in (404, 308)
    assert b"WSChat" not in get(app, f"/_wschat{path}").data


def test_it_is_only_read(app: Flask, chat: WSChat) -> None:
    client = app.test_client()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.open(PATH, method=method).status_code == 405


def test_an_upgraded_package_does_not_mix_with_a_running_process(
    app: Flask, chat: WSChat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert get(app).data == SOURCE
    monkeypatch.setattr("flask_wschat.opening.script.FOLDER", tmp_path)
    (tmp_path / "wschat.js").write_text("the next version")
    answer = get(app, f"{PATH}?v={VERSION}")
    assert (answer.data, answer.get_etag()[0]) == (SOURCE, VERSION)


@pytest.mark.parametrize("query", ["", f"?v={VERSION}"])
@pytest.mark.parametrize("lasting", [True, False])
def test_no_cache_gives_a_session_to_others(
    app: Flask, chat: WSChat, query: str, lasting: bool
) -> None:
    @app.before_request
    def remember() -> None:
        session.permanent = lasting
        session["visits"] = session.get("visits", 0) + 1

    answer = get(app, PATH + query)
    assert "Set-Cookie" in answer.headers
    cached = answer.headers["Cache-Control"]
    assert cached == "private, " + (FOREVER[8:] if query else "no-cache")


def test_an_application_asks_before_it_as_before_all_else(
    app: Flask, chat: WSChat
) -> None:
    seen: list[tuple[str | None, dict[str, Any] | None]] = []

    @app.before_request
    def refuse() -> Any:
        seen.append((request.endpoint, request.view_args))
        return ("who are you?", 401) if "in" not in request.args else None

    assert get(app).status_code == 401
    assert get(app, f"{PATH}?in").data == SOURCE
    assert seen == [("wschat.static", {"filename": "wschat.js"})] * 2


def test_what_hooks_and_extensions_say_of_it_stays(app: Flask, chat: WSChat) -> None:
    class Own(Response):
        """A response class of the application's own."""

    app.response_class = Own

    @app.after_request
    def allow(answer: Response) -> Response:
        assert isinstance(answer, Own)
        answer.headers.add("Access-Control-Allow-Origin", "https://a.example")
        return answer

    answer = get(app)
    assert answer.headers.getlist("Access-Control-Allow-Origin") == [
        "https://a.example"
    ]


@pytest.mark.parametrize("first", [True, False])
def test_the_applications_rules_are_the_ones(first: bool, tmp_path: Path) -> None:
    """Ours stand beside its own for the same folder, whichever come first."""
    (tmp_path / "mine.css").write_text("p {}")
    (tmp_path / "wschat.js").write_text("mine")
    app = Flask(__name__, static_folder=str(tmp_path), static_url_path="")
    mine = Blueprint(
        "mine", __name__, static_folder=tmp_path, static_url_path="/_wschat"
    )
    if first:
        app.register_blueprint(mine)
    WSChat(app)
    if not first:
        app.register_blueprint(mine)
    with get(app, "/_wschat/mine.css") as answer:
        assert answer.data == b"p {}"
    assert get(app).data == SOURCE


def test_a_file_of_the_applications_own_is_the_one(app: Flask, chat: WSChat) -> None:
    app.add_url_rule(PATH, "own", lambda: "mine")
    assert get(app).text == "mine"


@pytest.mark.parametrize("host", ["a.example", "b.example:8000", "127.0.0.1:5000"])
def test_every_host_of_an_application_has_it(host: str) -> None:
    app = Flask(__name__, host_matching=True, static_host="static.example")
    chat = WSChat(app)
    chat.listener("/chat", host="a.example")(Listener)
    client = app.test_client()
    assert client.get(PATH, base_url=f"http://{host}").data == SOURCE
    assert client.get("/_wschat/live", base_url=f"http://{host}").status_code == 200
    with app.test_request_context("/", base_url=f"http://{host}"):
        script = render_template_string("{{ wschat_script() }}")
        path = render_template_string("{{ wschat_url('Listener') }}")
    assert f'src="{PATH}?v={AS_GLOBAL}&amp;global"' in script
    assert path == ("/chat" if host == "a.example" else "//a.example/chat")


def test_apps_have_it_where_they_are_mounted() -> None:
    chat = WSChat()
    chat.listener("/chat/<room>")(Listener)
    apps = [Flask(f"app{number}") for number in range(2)]
    for app in apps:
        chat.init_app(app)
        app.add_url_rule(
            "/",
            view_func=lambda: render_template_string(
                "{{ wschat_script() }} {{ wschat_url('Listener', room='a b') }}"
            ),
        )
    client = Client(DispatcherMiddleware(apps[0], {"/two/deep": apps[1]}))
    for prefix in ("", "/two/deep"):
        script, _, path = client.get(f"{prefix}/").text.rpartition(" ")
        found = re.search('src="([^"]+)"', script)
        assert found is not None
        src = Markup(found[1]).unescape()
        assert src == f"{prefix}{PATH}?v={AS_GLOBAL}&global"
        assert client.get(src).headers["Cache-Control"] == FOREVER
        assert path == f"{prefix}/chat/a%20b"


# ---- in templates -------------------------------------------------------------------

SRC = f'type="module" src="{PATH}?v={AS_GLOBAL}&amp;global"'


def test_the_script_is_one_element(app: Flask, chat: WSChat) -> None:
    assert rendered(app, "{{ wschat_script() }}") == f"<script {SRC}></script>"


@pytest.mark.parametrize(
    ("call", "context"),
    [
        ("wschat_script('abc')", {}),
        ("wschat_script(nonce='abc')", {"csp_nonce": "other"}),
        ("wschat_script()", {"csp_nonce": "abc"}),
        ("wschat_script()", {"csp_nonce": lambda: "abc"}),
        ("wschat_script(csp_nonce)", {"csp_nonce": lambda: "abc"}),
    ],
)
def test_the_nonce_is_the_one_of_the_page(
    app: Flask, chat: WSChat, call: str, context: dict[str, Any]
) -> None:
    script = rendered(app, "{{ " + call + " }}", **context)
    assert script == f'<script {SRC} nonce="abc"></script>'


@pytest.mark.parametrize("where", ["globals", "context processor"])
def test_the_nonce_is_found_as_extensions_give_it(
    app: Flask, chat: WSChat, where: str
) -> None:
    if where == "globals":
        app.jinja_env.globals["csp_nonce"] = lambda: "abc"
    else:
        app.context_processor(lambda: {"csp_nonce": "abc"})
    assert 'nonce="abc"' in rendered(app, "{{ wschat_script() }}")


@pytest.mark.parametrize("nonce", ["", None, lambda: "", lambda: None])
def test_no_nonce_is_none(app: Flask, chat: WSChat, nonce: Any) -> None:
    assert "nonce" not in rendered(app, "{{ wschat_script() }}", csp_nonce=nonce)
    script = rendered(app, "{{ wschat_script('') }}", csp_nonce="abc")
    assert "nonce" not in script


EVIL = "\"><script>alert(1)</script>' onload='x"


@pytest.mark.parametrize("value", [EVIL, Markup(EVIL)], ids=["text", "marked as safe"])
@pytest.mark.parametrize("where", ["nonce", "title", "data_x", "src"])
def test_no_value_leaves_its_quotes(
    app: Flask, chat: WSChat, value: str, where: str
) -> None:
    script = rendered(app, "{{ wschat_script(**given) }}", given={where: value})
    assert script.count("<") == script.count(">") == 2
    assert script.count('"') % 2 == 0
    assert re.fullmatch(r'<script( [a-z-]+="[^"<>]*")+></script>', script)
    assert "alert(1)" in script


def test_attributes_are_written_as_html_has_them(app: Flask, chat: WSChat) -> None:
    script = rendered(
        app,
        "{{ wschat_script(async=True, defer=False, id=none, class_='a b',"
        " data_rooms=['x']|tojson, **{'x-y': 0}) }}",
    )
    assert script == (
        f'<script {SRC} async class="a b" data-rooms="[&#34;x&#34;]" x-y="0"></script>'
    )


@pytest.mark.parametrize("name", ["", "_", "a b", "a>", 'a"', "a'", "a=", "a/b", "a\0"])
def test_a_name_that_is_none_is_refused(app: Flask, chat: WSChat, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be called"):
        rendered(app, "{{ wschat_script(**{name: 1}) }}", name=name)


@pytest.fixture
def routed(app: Flask, chat: WSChat) -> Flask:
    board = Blueprint("board", __name__, url_prefix="/board")
    chat.listener("/chat")(Listener)
    chat.listener("/move/<int:number>", blueprint=board, endpoint="Move")(Listener)
    chat.route("/files/<path:name>", endpoint="files")(lambda ws, name: None)

    @app.get("/listen")
    def listen() -> str:
        return ""

    @board.get("/")
    def page() -> str:
        return render_template_string("{{ wschat_url('.Move', number=1) }}")

    app.register_blueprint(board)
    return app


@pytest.mark.parametrize(
    ("call", "path"),
    [
        ("'Listener'", "/chat"),
        ("'Listener', user='a&b', n=1", "/chat?user=a%26b&n=1"),
        ("'board.Move', number=3", "/board/move/3"),
        ("'files', name='a/b'", "/files/a/b"),
        ("'files', name='/evil.example/x'", "/files//evil.example/x"),
    ],
)
def test_a_route_is_told_by_its_path(routed: Flask, call: str, path: str) -> None:
    template = "{{ wschat_url(" + call + ") }}"
    assert Markup(rendered(routed, template)).unescape() == path
    secure = {"base_url": "https://chat.example/deep"}
    with routed.test_request_context("/x", **secure):
        text = render_template_string(template)
    assert Markup(text).unescape() == f"/deep{path}"


def test_a_path_does_not_lead_to_another_host(app: Flask, chat: WSChat) -> None:
    chat.route("/<path:name>", endpoint="all")(lambda ws, name: None)
    path = rendered(app, "{{ wschat_url('all', name='//evil.example/x') }}")
    assert path == "/evil.example/x"


def test_a_route_beside_the_page_is_named_as_for_url_for(routed: Flask) -> None:
    assert routed.test_client().get("/board/").text == "/board/move/1"


@pytest.mark.parametrize(
    ("endpoint", "nearest"),
    [
        ("listener", "Listener"),
        ("listen", "Listener"),  # a page
        ("Lisetner", "Listener"),
        ("move", "board.Move"),
        ("file", "files"),
        ("zzzzzzzz", None),
        ("", None),
    ],
)
def test_an_endpoint_that_is_none_is_told_with_the_nearest(
    routed: Flask, endpoint: str, nearest: str | None
) -> None:
    guess = f": did you mean {nearest!r}?" if nearest else ""
    text = f"no WebSocket route has the endpoint {endpoint!r}{guess}"
    with pytest.raises(LookupError, match=re.escape(text) + "$"):
        rendered(routed, "{{ wschat_url(endpoint) }}", endpoint=endpoint)


def test_values_that_are_missing_are_told_as_by_flask(routed: Flask) -> None:
    with pytest.raises(BuildError, match="number"):
        rendered(routed, "{{ wschat_url('board.Move') }}")


def test_without_a_request_the_server_has_a_name(routed: Flask) -> None:
    routed.config.update(SERVER_NAME="chat.example", APPLICATION_ROOT="/deep")
    with routed.app_context():
        text = render_template_string(
            "{{ wschat_script() }} {{ wschat_url('Listener') }}"
        )
    assert f'src="http://chat.example/deep{PATH}?v=' in text
    assert text.endswith(" /deep/chat")


def test_a_socket_may_render_templates(app: Flask, chat: WSChat) -> None:
    template = "{{ wschat_script() }} {{ wschat_url('render', n=ws.id) }}"

    @chat.route("/render/<n>")
    def render(ws: WebSocket, n: str) -> None:
        ws.send(render_template_string(template, ws=ws))
        ws.send(ws.id)

    @chat.listener("/listen", endpoint="listen")
    class Listens(Listener):
        def on_open(self, ws: WebSocket) -> None:
            ws.send(render_template_string(template, ws=ws))
            ws.send(ws.id)

    client = WSChatClient(app)
    for path in ("/render/1", "/listen", "/render/2", "/listen"):
        with client.connect(path) as socket:
            script, _, url = str(socket.receive()).rpartition(" ")
            assert script == f"<script {SRC}></script>"
            assert url == "/render/" + str(socket.receive())


def test_a_route_of_another_host_is_named_with_it(app: Flask, chat: WSChat) -> None:
    app.config["SERVER_NAME"] = "chat.example"
    chat.listener("/chat", subdomain="live")(Listener)
    with app.test_request_context("/", base_url="https://chat.example"):
        path = render_template_string("{{ wschat_url('Listener') }}")
    assert path == "//live.chat.example/chat"


@pytest.mark.parametrize("when", ["before", "after", "late", "processor"])
def test_the_names_of_an_application_are_its_own(when: str) -> None:
    app = Flask(__name__)

    def own() -> str:
        return "mine"

    if when == "before":
        app.template_global("wschat_script")(own)
    chat = WSChat()
    chat.init_app(app)
    if when == "after":
        app.template_global("wschat_script")(own)
    if when == "late":
        rendered(app, "{{ wschat_script() }}")
        app.jinja_env.globals["wschat_script"] = own
    if when == "processor":
        app.context_processor(lambda: {"wschat_script": own})
    chat.listener("/chat")(Listener)
    text = rendered(app, "{{ wschat_script() }} {{ wschat_url('Listener') }}")
    assert text == "mine /chat"


def test_the_options_of_templates_can_still_be_set() -> None:
    app = Flask(__name__)
    WSChat(app)
    app.jinja_options = {"variable_start_string": "<<", "variable_end_string": ">>"}
    assert "wschat.js" in rendered(app, "<< wschat_script() >>")


def test_macros_know_them_too(app: Flask, chat: WSChat, tmp_path: Path) -> None:
    """What is imported without the context knows only what is global."""
    app.template_folder = str(tmp_path)
    (tmp_path / "parts.html").write_text(
        "{% macro head() %}{{ wschat_script() }}{% endmacro %}"
    )
    text = rendered(app, "{% import 'parts.html' as parts %}{{ parts.head() }}")
    assert text == f"<script {SRC}></script>"
