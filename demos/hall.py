"""What all answers have, and the way into the demos from a phone in the same room."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import ipaddress
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, render_template, request
from werkzeug.exceptions import BadHost, HTTPException, ServiceUnavailable

from flask_wschat import BackendError

hall = Blueprint("hall", __name__)

HOST = os.environ.get("HOST") or "127.0.0.1"

HEADERS = {
    # No name and no message can then be a script, whatever a page does with it.
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@hall.before_app_request
def take_forms_of_ours() -> None:
    """``SameSite`` keeps our cookies from other sites, but not from other ports."""
    origin = request.headers.get("Origin", f"://{request.host}")
    if request.method == "POST" and origin.partition("://")[2] != request.host:
        abort(403)


@hall.after_app_request
def trust_only_ours(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


@hall.after_app_request
def compress(response: Response) -> Response:
    """In a full hall many phones share one network."""
    text = (response.mimetype or "").startswith("text/")
    if text and response.status_code == 200 and not response.content_encoding:
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"]:
            response.direct_passthrough = False  # else a static file is not read yet
            response.set_data(gzip.compress(response.get_data()))
            response.content_encoding = "gzip"
            if (etag := response.get_etag()[0]) is not None:
                response.set_etag(etag, weak=True)  # parts of both do not fit together
    return response


def own_key(path: Path) -> str:
    """The key that signs the cookies: made at the first start, and read by this user
    only. So sessions outlive a restart, and all workers know them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # others can't read
        file.write(secrets.token_hex())
        file.flush()
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)  # whole, and one worker's only
    return path.read_text()


# ---- when something cannot be done --------------------------------------------------


@hall.app_errorhandler(HTTPException)
def failed(error: HTTPException) -> Any:
    if request.path.startswith(("/ws/", "/_wschat/")):
        return error  # nobody reads it, but the client its status
    if isinstance(error, BadHost):
        return error  # no page of ours has a link then
    # With headers of its own: what is allowed, when again.
    answer = error.get_response()
    answer.data = render_template("error.html", code=error.code)
    return answer


@hall.app_errorhandler(BackendError)
def unavailable(error: BackendError) -> Any:
    return failed(ServiceUnavailable())


# ---- the way in for phones ----------------------------------------------------------


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_near() -> bool:
    """Whether this request is of a browser on this machine."""
    host = urlsplit(f"//{request.host}").hostname or ""
    near = is_loopback(host) and is_loopback(request.remote_addr or "")
    return near and "X-Forwarded-For" not in request.headers  # a proxy, for others


def lan_address() -> str | None:
    """The address of this machine that others in its network know."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, but chooses an address
        except OSError:
            return None
        name: str = probe.getsockname()[0]
        return name


def public_url(path: str) -> str:
    """The address of a page for others, too: "localhost" is each machine's own."""
    here = f"{request.scheme}://{request.host}"  # host_url fails on some names
    url = urlsplit(here)
    if is_loopback(url.hostname or "") and not is_loopback(HOST):
        host = lan_address() or url.hostname
        return f"{url.scheme}://{host}{f':{url.port}' if url.port else ''}{path}"
    return here + path


def qr_svg(url: str) -> str | None:
    """``url`` as a picture for cameras, if it fits, and ``segno`` is installed."""
    try:
        return drawn(url)
    except (ModuleNotFoundError, ValueError):
        return None


@functools.lru_cache(64)  # a full hall asks for the same ones
def drawn(url: str) -> str:
    import segno

    picture = io.BytesIO()
    # Black on white, with its margin, on dark pages too: cameras expect that.
    segno.make(url, error="m", micro=False).save(
        picture, kind="svg", xmldecl=False, omitsize=True, light="#fff"
    )
    return picture.getvalue().decode()


@hall.app_context_processor
def ways_in() -> dict[str, Any]:
    """``phone_url``: the server's address for others, if there is one."""
    url = public_url("")
    return {"phone_url": "" if is_loopback(urlsplit(url).hostname or "") else url}


@hall.get("/qr.svg")
def qr() -> Response:
    path = request.args.get("path", "/")
    if not path.startswith("/") or len(path.encode()) > 300:
        abort(404)
    picture = qr_svg(public_url(path)) or abort(404)
    return Response(picture, mimetype="image/svg+xml")
