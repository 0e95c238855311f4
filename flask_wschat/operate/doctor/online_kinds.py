"""What may be wrong on the way from the world to the app. See ``online.py``."""

from __future__ import annotations

from .finding import Kind

_FIX = "app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)"

BAD_URL = Kind(
    "url",
    "error",
    "--url is no address of a site: {why}",
    "Nothing was looked at there.",
    "flask wschat doctor --url https://chat.example.org",
)
UNREACHABLE = Kind(
    "site-unreachable",
    "error",
    "{origin} cannot be reached: {why}",
    "Nobody can.",
    "curl -v {origin}/_wschat/live   # does the proxy run; name, port, firewall?",
)
CERTIFICATE = Kind(
    "certificate",
    "error",
    "the certificate of {host} is not trusted: {why}",
    "Browsers open no WebSocket there, and show no page that asks whether to.",
    "certbot renew   # fullchain.pem, for that very name; or SSL_CERT_FILE=ca.pem here",
)
CERTIFICATE_ENDS = Kind(
    "certificate-ends",
    "warning",
    "the certificate of {host} ends in {days} days",
    "Then browsers open no WebSocket there.",
    "certbot renew   # and reload the proxy",
)
CLOCK = Kind(
    "clock-site",
    "warning",
    "the clock of the site is {seconds} s {way} ours",
    "Tickets, sessions and certificates count by different clocks.",
    "timedatectl set-ntp true   # on both hosts",
)
REDIRECTS = Kind(
    "site-redirects",
    "error",
    "{origin} leads elsewhere: {to}",
    "A WebSocket follows no redirect.",
    "flask wschat doctor --url …   # where it leads; and wss:// there in pages",
)
APP_DOWN = Kind(
    "proxy-without-app",
    "error",
    "the proxy ({server}) answers {status}: it reaches no app",
    "Nobody can connect.",
    "systemctl status chat   # does it run, and listen where proxy_pass says?",
)
BLOCKED = Kind(
    "site-blocked",
    "warning",
    "the site answers {status} to /_wschat/live",
    "A login of the proxy, or of the app, comes before it: what watches over the"
    " server takes it for dead, and the rest was not looked at.",
    "location /_wschat/ {{ auth_basic off; }}   # or let pass endpoint wschat.health",
)
NOT_OURS = Kind(
    "site-not-ours",
    "error",
    "at {origin} is no /_wschat/live (status {status})",
    "Another program answers there, or the proxy passes on other paths only.",
    "location / {{ proxy_pass http://127.0.0.1:8000; }}   # see docs/deploy/nginx.conf",
)
NOT_READY = Kind(
    "site-not-ready",
    "error",
    "the site is not ready: {why}",
    "It drains, or its storage is away: new connections get 503.",
    "curl -s …/_wschat/ready   # and the log of the logger flask_wschat",
)
OTHER_KEY = Kind(
    "site-other-key",
    "warning",
    "the app at the site does not know this app's SECRET_KEY (status {status})",
    "It is another app or version, each process has a key of its own, or something"
    " comes before it. What the proxy passes on was not looked at.",
    "flask wschat doctor --url …   # on the server, with its environment",
)
HTTP_1_0 = Kind(
    "proxy-http-1.0",
    "error",
    "the proxy asks the app in HTTP/1.0",
    "There are no WebSockets in it: each gets 400.",
    "proxy_http_version 1.1;   # nginx, in the same location as proxy_pass",
)
SCHEME_LOST = Kind(
    "proxy-scheme-lost",
    "error",
    "the site is {asked}://, and the app sees {seen}://: the proxy sends no {header}",
    "The page's own origin is a foreign one to the app: browsers get 403.",
    "{line}   # nginx; and in the app " + _FIX,
)
HOST_LOST = Kind(
    "proxy-host-lost",
    "error",
    "the site is {asked}, and the app sees {seen}: the proxy changes Host, and sends no"
    " {header}",
    "The page's own origin is a foreign one to the app: browsers get 403.",
    "{line}   # nginx",
)
FIX_MISSING = Kind(
    "proxy-not-believed",
    "error",
    "the {name} is {asked}, and the app sees {seen}: the proxy says so by {header}, and"
    " nothing in the app reads it",
    "Origins do not match, so that browsers get 403; or all clients have one address.",
    _FIX,
)
FIX_COUNT = Kind(
    "proxy-count",
    "error",
    "the {name} is {asked}, and the app sees {seen}: ProxyFix has {short}={count}, and"
    " {values} proxies have said something",
    "Origins do not match, so that browsers get 403; or all clients have one address.",
    "ProxyFix(app.wsgi_app, {short}={values})",
)
SAYS_WRONG = Kind(
    "proxy-says-wrong",
    "error",
    "the {name} is {asked}, and the app sees {seen}: that is what the proxy says by"
    " {header} ({said})",
    "The page's own origin is a foreign one to the app: browsers get 403.",
    "{line}   # nginx; $host leaves out the port",
)
ADDRESS_LOST = Kind(
    "proxy-address-lost",
    "warning",
    "the proxy sends no X-Forwarded-For: to the app all clients are {peer}",
    "Limits of one address count all as one, and logs name the proxy.",
    "proxy_set_header X-Forwarded-For $remote_addr;   # nginx",
)
ADDRESS_FORGED = Kind(
    "address-forged",
    "error",
    "a client chooses its address: we said {address}, and the app believed it",
    "Limits of one address hold nobody, and logs name whom a client likes.",
    "proxy_set_header X-Forwarded-For $remote_addr;   # and x_for = proxies there are",
)
HOST_FORGED = Kind(
    "host-forged",
    "error",
    "a client chooses the {names} that the app sees",
    "Links that the app makes, in mails for example, may lead to somebody else.",
    "proxy_set_header X-Forwarded-Host $http_host;   # and X-Forwarded-Proto $scheme",
)
ORIGIN = Kind(
    "origin-refused",
    "error",
    "a page of {origin} is refused: this origin is not allowed",
    "The app takes the site for another one: what the proxy says of it is lost, or"
    " WSCHAT_ORIGINS leaves it out.",
    'app.config["WSCHAT_ORIGINS"] = ["{origin}"]   # behind a proxy: ' + _FIX,
)
REBOUND = Kind(
    "host-refused",
    "error",
    "a page of {host} is refused: this host is not allowed",
    "A proxy on the same machine that says nothing of itself looks like DNS rebinding.",
    "proxy_set_header X-Forwarded-For $remote_addr;   # or TRUSTED_HOSTS = ['{host}']",
)
UPGRADE_LOST = Kind(
    "proxy-upgrade-lost",
    "error",
    "a WebSocket arrives as an ordinary request (status {status}): the proxy drops"
    " Upgrade and Connection",
    "No WebSocket opens through it.",
    "proxy_set_header Upgrade $http_upgrade;"
    " proxy_set_header Connection $connection_upgrade;   # see docs/deploy/nginx.conf",
)
NO_HANDSHAKE = Kind(
    "handshake-refused",
    "error",
    "a WebSocket for {path} {why}",
    "No page can open one there.",
    "flask wschat connect '{url}' --origin {origin}   # and the app's log says why",
)
