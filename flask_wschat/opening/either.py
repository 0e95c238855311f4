"""URL adapters for requests that ask to upgrade: for routes of both kinds."""

from __future__ import annotations

from typing import Any

from werkzeug.routing import MapAdapter, WebsocketMismatch


class EitherAdapter(MapAdapter):
    """One that finds plain routes, too, where there is no WebSocket's.

    Werkzeug keeps them apart, so without this a plain view that has its socket from
    ``environ["wsgi.websocket"]`` would answer nobody.
    """

    def match(self, *args: Any, **options: Any) -> Any:
        try:
            return super().match(*args, **options)
        except WebsocketMismatch:
            if args or options.keys() - {"return_rule"}:
                raise  # the question is not which route this request has
            self.websocket = False
            return super().match(*args, **options)


def find_either(adapter: Any) -> Any:
    """Return a request's new URL adapter as one that finds routes of both kinds."""
    if type(adapter) is MapAdapter:
        adapter.__class__ = EitherAdapter
    elif adapter is not None:
        _decide(adapter)
    return adapter


def _decide(adapter: Any) -> None:
    """Tell an adapter of the application's own which kind of route to find."""
    try:
        adapter.match(return_rule=True)
    except WebsocketMismatch:
        adapter.websocket = False
    except Exception:
        pass  # Flask asks the same next, where it can answer for what is raised
