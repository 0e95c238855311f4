"""Pages with strict policies that say Hello in their title if they talk."""

from __future__ import annotations

from flask import Flask, Response, g, render_template_string, request

from flask_wschat import ChatListener, WebSocket, WSChat

from .readme import SNIPPETS

TALK = """
  globalThis.refused = [];
  const note = ({ effectiveDirective }) => refused.push(effectiveDirective);
  document.addEventListener("securitypolicyviolation", note);
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


def strict_app() -> Flask:
    app = Flask(__name__)
    chat = WSChat(app)
    chat.listener("/chat")(ChatListener)

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

    return app
