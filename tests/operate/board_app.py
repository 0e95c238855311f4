"""The ready-made chat and its dashboard, in a process of its own or in several."""

from __future__ import annotations

import os

from flask import Flask, Response, abort, request

from flask_wschat import ChatListener, WSChat

app = Flask(__name__)
app.name = "Board"
app.config["WSCHAT_URL"] = os.environ.get("WSCHAT_URL", "memory://")
app.config["WSCHAT_RATE_LIMIT"] = None
chat = WSChat(app)
chat.listener("/chat")(ChatListener)


@chat.authenticate
def who() -> str | None:
    return request.args.get("user")


def allow() -> bool:
    if os.environ.get("REFUSING") and os.path.exists(os.environ["REFUSING"]):
        abort(403)
    return True


chat.dashboard("/admin/live", allow=allow)


@app.after_request
def be_strict(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response
