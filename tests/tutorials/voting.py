"""Live voting as tutorials for gevent-websocket write it, plus `WSChat(app)`.

A client sends a candidate's id; everybody gets `{"cid", "count"}`. The same view
answers a plain request with the page. It is one of the careful ones: it catches
`WebSocketError` and takes the dead socket out of its list.
"""

import json
from typing import Any

from flask import Flask, request
from geventwebsocket.exceptions import WebSocketError

from flask_wschat import WSChat
from tests.tutorials.serving import serve

app = Flask(__name__)
WSChat(app)

CANDIDATES = {
    "1": {"name": "Rosa", "count": 0},
    "2": {"name": "Bruno", "count": 0},
}
WEBSOCKET_LIST: list[Any] = []
removed = 0


@app.route("/ws")
def ws() -> str:
    global removed
    websocket = request.environ.get("wsgi.websocket")
    if websocket is None:
        counts = ", ".join(f"{c['name']}: {c['count']}" for c in CANDIDATES.values())
        return f"{counts} ({len(WEBSOCKET_LIST)} watching, {removed} removed)"
    WEBSOCKET_LIST.append(websocket)
    while True:
        cid = websocket.receive()
        if cid is None:
            # Left in the list: whoever votes next finds it dead.
            websocket.close()
            return ""
        candidate: dict[str, Any] = CANDIDATES[cid]
        candidate["count"] += 1
        for client in list(WEBSOCKET_LIST):
            try:
                client.send(json.dumps({"cid": cid, "count": candidate["count"]}))
            except WebSocketError:
                WEBSOCKET_LIST.remove(client)
                removed += 1


if __name__ == "__main__":
    serve(app)
