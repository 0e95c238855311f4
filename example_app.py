"""The demos: plain Flask plus the ready-made chat.

Run ``python example_app.py`` and open the address it prints in two browsers. Each demo
is a file of ``demos/``; its pages are in ``templates/``, what they do in the browser is
in ``static/``. All that people share (votes, rooms, messages, who is there) is where
``WSCHAT_URL`` says: in this process without it, for many processes
``redis://localhost:6379/0``, for instance.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from demos import chat
from demos.bot import bot
from demos.hall import HOST, hall, own_key
from demos.home import home
from demos.language import language
from demos.live import live
from demos.panes import plug
from demos.plug import PLUG
from demos.private import private
from demos.protocol import protocol
from demos.talk import group
from demos.vote import declare, vote
from demos.who import people
from demos.wire import Wires

app = Flask(__name__)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024  # of a form
app.config["WSCHAT_URL"] = os.environ.get("WSCHAT_URL") or "memory://"
app.config.from_prefixed_env()  # FLASK_WSCHAT_RATE_LIMIT=null, for a crowd at one desk
app.secret_key = app.secret_key or own_key(Path(app.instance_path) / "secret_key")

for part in (hall, language, people, home, vote, group, private, bot, protocol, live):
    app.register_blueprint(part)
app.json.ensure_ascii = False  # type: ignore[attr-defined]  # half the bytes
chat.init_app(app)
if PLUG:
    app.register_blueprint(plug)
# What passes there can be looked at, and with the plug spoilt.
wired = ("/ws/",) if PLUG else ("/ws/echo",)
app.wsgi_app = Wires(app.wsgi_app, wired)  # type: ignore[method-assign]
declare()

if __name__ == "__main__":
    chat.run(app, host=HOST, port=int(os.environ.get("PORT", "5000")))
