"""Private chat as tutorials for gevent-websocket write it, plus `WSChat(app)`.

The name is in the address, the sockets are in a global dict, the messages are JSON
with `to_user`, `from_user` and `msg`. A name without a socket is a KeyError, which ends
the sender's view; a view that ends closes its socket.
"""

import json
from typing import Any

from flask import Flask, request

from flask_wschat import WSChat
from tests.tutorials.serving import serve

app = Flask(__name__)
WSChat(app)

user_socket_dict: dict[str, Any] = {}


@app.route("/")
def index() -> str:
    return " ".join(sorted(user_socket_dict))


@app.route("/ws/<nickname>")
def ws(nickname: str) -> str:
    user_socket = request.environ.get("wsgi.websocket")
    if not user_socket:
        return "This address wants a WebSocket."
    user_socket_dict[nickname] = user_socket
    while True:
        msg = user_socket.receive()
        if msg is None:
            break
        msg_dict = json.loads(msg)
        to_socket = user_socket_dict[msg_dict["to_user"]]
        to_socket.send(json.dumps({"from_user": nickname, "msg": msg_dict["msg"]}))
    del user_socket_dict[nickname]
    return ""


if __name__ == "__main__":
    serve(app)
