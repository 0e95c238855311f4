"""``tests/support/chat_server.py`` as a program that may be killed, and begin again."""

from __future__ import annotations

from pathlib import Path

from .ports import free_port
from .processes import Process


class ChatServer(Process):
    """It keeps its port over restarts. ``static``: a folder that it serves, too."""

    def __init__(self, folder: Path, url: str, static: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        env = {"PORT": str(self.port), "WSCHAT_URL": url}
        if static is not None:
            env["STATIC"] = str(static)
        command = ["-m", "tests.support.chat_server"]
        super().__init__(command, folder / "server.log", env, forked="patched")
        self.start()

    def start(self) -> None:
        super().start()
        self.await_port(self.port)

    def check(self) -> None:
        self.kill()
        assert "Traceback" not in self.log, self.log
