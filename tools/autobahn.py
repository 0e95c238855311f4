"""Run the Autobahn conformance suite (`wstest`) against an echo server of ours.

The report goes to build/autobahn/index.html. Status 1: a case failed, or no `wstest`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build"
ACCEPTABLE = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
HOW = """\
The conformance suite needs `wstest`, in PATH or named by WSTEST. It comes with the
package autobahntestsuite, which runs on Python 2.7 only: version 0.8.2 there. With a
container, this small script called wstest will do:
    exec docker run --rm --network host -v "$PWD:$PWD" -w "$PWD" \\
        crossbario/autobahn-testsuite wstest "$@"
"""


def serve() -> None:
    """Echo on a free port, printed as the first line, until stdin ends."""
    from flask import Flask

    from benchmarks.servers.serving import serve
    from flask_wschat import WebSocket, WSChat
    from flask_wschat.server import WebSocketHandler

    app = Flask(__name__)
    app.config["WSCHAT_MAX_MESSAGE"] = app.config["WSCHAT_MAX_QUEUE"] = 32 << 20
    chat = WSChat(app)

    @chat.route("/")
    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    serve(app, WebSocketHandler)


def run_suite(wstest: str, url: str) -> list[str]:
    """Run all cases; return the ones that failed, as text."""
    BUILD.mkdir(exist_ok=True)
    spec = BUILD / "autobahn.json"
    server = {"agent": "flask-wschat", "url": url}
    report = {"outdir": str(BUILD / "autobahn"), "servers": [server], "cases": ["*"]}
    spec.write_text(json.dumps(report))
    status = subprocess.call([wstest, "-m", "fuzzingclient", "-s", str(spec)])
    if status:
        return [f"{wstest} itself failed, with status {status}"]
    index = json.loads((BUILD / "autobahn" / "index.json").read_text())
    cases = index["flask-wschat"]
    print("==>", dict(Counter(case["behavior"] for case in cases.values())))
    return [
        f"case {name}: {case['behavior']}, close {case['behaviorClose']}"
        for name, case in cases.items()
        if not {case["behavior"], case["behaviorClose"]} <= ACCEPTABLE
    ]


def main() -> None:
    wstest = os.environ.get("WSTEST") or shutil.which("wstest")
    if wstest is None:
        sys.exit(HOW)
    with subprocess.Popen(
        [sys.executable, "-m", "tools.autobahn", "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin and server.stdout
        port = int(server.stdout.readline())
        print("==> Conformance suite", flush=True)
        failed = run_suite(wstest, f"ws://127.0.0.1:{port}/")
        server.stdin.close()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
