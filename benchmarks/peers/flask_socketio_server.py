# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, misc"
"""Flask-SocketIO in its gevent mode, spoken to in its own protocol."""

from gevent import monkey

monkey.patch_all()

from flask import Flask  # noqa: E402
from flask_socketio import SocketIO, emit, send  # noqa: E402
from geventwebsocket.handler import WebSocketHandler  # noqa: E402

from benchmarks.servers.serving import serve  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent", max_http_buffer_size=32 << 20)


@socketio.on("echo")
def echo(message: str) -> None:
    send(message)


@socketio.on("fan")
def fan(message: str) -> None:
    emit("message", message, broadcast=True)


if __name__ == "__main__":
    serve(app, WebSocketHandler)
