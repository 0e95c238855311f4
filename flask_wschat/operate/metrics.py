"""``/_wschat/metrics``: the figures of a server, as Prometheus reads them.

All of its workers', whichever is asked. Rooms, users and addresses are never labels:
what clients can choose would be a series each, and kept for as long as Prometheus keeps
anything.
"""

from __future__ import annotations

import gzip
import ipaddress
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, request

from ..hub.figures import FIGURES, Figure
from ..hub.hub import Hub
from .sharing import NOTHING, Read, Sharing

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_NAMES = {
    "connections": ("connections", "WebSockets that are open."),
    "users": ("users", "Users with a connection; in each worker each counts once."),
    "rooms": ("rooms", "Rooms with a connection; in each worker each counts once."),
    "queued_bytes": ("queued_bytes", "Bytes that wait for all connections."),
    "backend_up": ("backend_up", "1 if the backend answers all workers, else 0."),
    "opened": ("connections_opened", "WebSockets that were opened."),
    "closed": ("connections_closed", "WebSockets that ended, by close code."),
    "refused": (
        "handshakes_refused",
        "Opening handshakes answered by an HTTP error, by its status.",
    ),
    "messages_in": ("messages_received", "Messages of peers."),
    "messages_out": (
        "messages_sent",
        "Messages queued to peers, deliveries and replies; control frames are not.",
    ),
    "published": ("published", "Messages handed to the backend."),
    "deliveries": (
        "deliveries",
        "Publications handed to connections; one for ten of them counts ten.",
    ),
    "slow_closes": (
        "slow_closes",
        "Connections closed because their peers read too slowly.",
    ),
    "dropped": ("messages_dropped", "Messages dropped for peers that read too slowly."),
    "errors": ("handler_errors", "Exceptions of handlers and views."),
    "handler_seconds": ("handler_seconds", "How long a handler had a message."),
    "backend_seconds": ("backend_seconds", "How long the backend took to answer."),
    "lag_seconds": ("loop_lag_seconds", "How late the event loop came to its timer."),
    "queue_bytes": ("queue_bytes", "Bytes that wait for a connection, at each sweep."),
}
"""What each figure is called, after ``wschat_``, and what is told of it."""
_FIGURES = {figure.name: figure for figure in FIGURES}
_LABELS = {"closed": "code", "refused": "status"}

MISSING = "/_wschat/metrics needs prometheus-client: pip install flask-wschat[metrics]"


METRICS = "wschat.metrics"
"""Where ``app.extensions`` has the ``Metrics`` of an application."""


class Collector:
    """The figures of an application's server, for a registry of ``prometheus_client``.

    ``registry.register(Collector(app))``. They are those of all its workers, so that
    one of these is asked, whichever, and not each.
    """

    def __init__(self, app: Flask) -> None:
        metrics: Metrics = app.extensions[METRICS]
        self._sharing = metrics.sharing

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        return _metrics(*self._sharing.read())

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without asking for them."""
        return _metrics(NOTHING, 0)


def _metrics(figures: Read, workers: int) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    yield GaugeMetricFamily("wschat_workers", "Processes of this server.", workers)
    for name in _NAMES:
        yield _metric(_FIGURES[name], figures[name])


def _metric(figure: Figure, value: Any) -> Metric:
    from prometheus_client import core
    from prometheus_client.utils import floatToGoString

    name, told = _NAMES[figure.name]
    name = f"wschat_{name}"
    if figure.bounds:
        write: Callable[[float], str] = floatToGoString
        buckets = [(write(bound), count) for bound, count in value["buckets"]]
        return core.HistogramMetricFamily(name, told, buckets, value["sum"])
    if figure.labels:
        counter = core.CounterMetricFamily(name, told, labels=[_LABELS[figure.name]])
        for label in figure.labels:  # also at 0, or the first would be no increase
            counter.add_metric([label], value.get(label, 0))
        return counter
    if figure.kind == "counter":
        return core.CounterMetricFamily(name, told, value)
    return core.GaugeMetricFamily(name, told, value)


class Metrics:
    """``/_wschat/metrics`` of an application."""

    def __init__(
        self, app: Flask, hub: Hub, blueprint: Blueprint, host: str | None
    ) -> None:
        self.sharing = Sharing(hub.figures, app.import_name)
        hub.on_begin = self.sharing.join
        self._app = app
        self._whom = hub.settings.METRICS
        if self._whom:
            # As no rule of the application's looks, which has the first say then.
            rule = "/_wschat/<any(metrics):page>"
            blueprint.add_url_rule(rule, "metrics", self._page, host=host)

    def text(self) -> str:
        """Return the figures in the text format of Prometheus.

        :raises RuntimeError: prometheus-client is not installed.
        """
        return self._written("")[0].decode()

    def _written(self, accept: str) -> tuple[bytes, str]:
        """Return them in the best format that is accepted, and what that is called."""
        try:
            from prometheus_client import CollectorRegistry
            from prometheus_client.exposition import choose_encoder
        except ImportError:
            raise RuntimeError(MISSING) from None
        registry = CollectorRegistry()
        registry.register(Collector(self._app))
        try:
            encode, kind = choose_encoder(accept)
        except (TypeError, ValueError):  # by a version that is no number
            encode, kind = choose_encoder("")
        return encode(registry), kind

    def _page(self, page: str) -> Response:
        fault = self._whom == "private" and not_private(request.environ)
        if fault:
            return _told(403, fault)
        try:
            data, kind = self._written(request.headers.get("Accept", ""))
        except RuntimeError as error:
            return _told(501, str(error))
        except OSError as error:
            return _told(503, f"the other workers' figures cannot be read: {error}")
        answer = Response(data, content_type=kind)
        answer.headers["Cache-Control"] = "no-store"
        answer.vary.update(["Accept", "Accept-Encoding"])
        if request.accept_encodings["gzip"] > 0:
            answer.data = gzip.compress(data, 6)
            answer.content_encoding = "gzip"
        return answer


def _told(status: int, words: str) -> Response:
    answer = Response(f"{words}\n", status, content_type="text/plain; charset=utf-8")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def not_private(environ: dict[str, Any]) -> str:
    """Return why a request is not one of a private address that came directly, if so.

    What a proxy passes on comes from its own address, however far away the client is.
    """
    for name in environ:
        if name.startswith("HTTP_") and (
            # X-Real-IP, Cf-Connecting-IP …
            "FORWARDED" in name or name.endswith("_IP") or name == "HTTP_VIA"
        ):
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            return f"this came through a proxy, as {header} says. {_REMEDY}"
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":  # nginx's, unless told otherwise
        return f"this came by HTTP/1.0, as from a proxy. {_REMEDY}"
    try:
        address = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
    except ValueError:
        return f"this came from no address. {_REMEDY}"
    mapped = getattr(address, "ipv4_mapped", None)
    if (mapped or address).is_private:  # loopback is
        return ""
    return f"this came from an address that is not private. {_REMEDY}"


_REMEDY = (
    "These figures are for who asks the server itself, from a private address: scrape"
    " that, not the proxy. Or set WSCHAT_METRICS = True, and let the proxy, or a route"
    " of your own that returns chat.metrics(), say who may read them"
)
