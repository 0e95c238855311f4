"""An app for a site that a doctor visits: ``tests.operate.visited:app``."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, abort
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_wschat import Listener, WSChat

KEY = "4e1f0c3f5b7a92d8c6e4"


def create(fix: dict[str, int] | None, **config: Any) -> Flask:
    app = Flask("visited")
    app.config.update({"SECRET_KEY": KEY} | config)
    if fix is not None:
        app.wsgi_app = ProxyFix(app.wsgi_app, **fix)  # type: ignore[method-assign]
    chat = WSChat(app)

    @chat.authenticate
    def who() -> None:
        abort(401)  # nobody has logged in: a doctor is not let in, and needs not be

    @chat.listener("/rooms/<int:room>")
    class Room(Listener):
        pass

    return app


if "VISITED" in os.environ:
    app = create(**json.loads(os.environ["VISITED"]))
