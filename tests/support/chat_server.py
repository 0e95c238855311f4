"""The ready-made chat in a process of its own, for tests that kill it."""

from __future__ import annotations

import os

from flask import Flask, abort, request

from flask_wschat import WSChat
from flask_wschat.chat.listener import ChatListener

PAGE = """<!doctype html><title>chat</title><script type="module">
  import { WSChat } from "/_wschat/wschat.js";
  window.WSChat = WSChat;
</script>"""

app = Flask(__name__, static_folder=os.environ.get("STATIC"), static_url_path="/static")
app.secret_key = "for tests"
app.config["WSCHAT_URL"] = os.environ.get("WSCHAT_URL", "memory://")
app.config["WSCHAT_HISTORY_SIZE"] = 1000
app.config["WSCHAT_RATE_LIMIT"] = None
app.config.from_prefixed_env("TEST")
chat = WSChat(app)
chat.listener("/chat")(ChatListener)


@chat.authenticate
def who() -> str | None:
    if status := request.args.get("refused"):
        abort(int(status))
    return request.args.get("user")


@app.get("/")
def page() -> str:
    return PAGE


@app.get("/ticket")
def ticket() -> str:
    return chat.ticket(request.args["user"], float(request.args.get("seconds", 30)))


if __name__ == "__main__":
    chat.run(app, port=int(os.environ["PORT"]))
