"""A local server for the page, and the page inside a notebook."""

import errno
import html
import logging
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

logger = logging.getLogger(__name__)

_FIRST_PORT, _PORTS = 7860, 100
"""Ports that are tried if none is given."""
_NOTEBOOK_HEIGHT = 760
"""Height of the page in a notebook, in pixels."""


def show(page: str) -> None:
    """Shows the page inside a notebook.

    Args:
        page: HTML document, of :func:`build_page`.
    """
    from IPython.display import HTML, display

    frame = (
        f'<div><iframe srcdoc="{html.escape(page)}" width="100%" height="{_NOTEBOOK_HEIGHT}" '
        'style="border: 0" title="A trained model"></iframe></div>'
    )
    display(HTML(frame))


def serve(page: str, *, host: str = "127.0.0.1", port: int | None = None) -> None:
    """Serves the page until it is interrupted.

    Args:
        page: HTML document, of :func:`build_page`.
        host: address to listen on. The default accepts connections from this computer only;
            0.0.0.0 accepts all.
        port: port to listen on; None: the first free one from 7860.

    Raises:
        OSError: if the host isn't an address of this computer, or the port isn't free.
        ValueError: if there is no such port.
    """
    if port is not None and not 0 < port < 2**16:
        raise ValueError(f"port must be between 1 and 65535, got {port}")
    content = page.encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds, after which an idle connection is closed

        def do_GET(self) -> None:
            self.do_HEAD()
            if self.path.split("?")[0] == "/":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            found = self.path.split("?")[0] == "/"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with _listen(host, port, Handler) as server:
        address = f"[{host}]" if ":" in host else host
        logger.info("the page is at http://%s:%d", address, server.server_address[1])
        server.serve_forever()


def _listen(
    host: str, port: int | None, handler: type[BaseHTTPRequestHandler]
) -> ThreadingHTTPServer:
    try:
        family = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise OSError(f"{host} isn't an address of this computer") from error

    class Server(ThreadingHTTPServer):
        address_family = family
        # On Windows, it would let two servers share a port.
        allow_reuse_address = sys.platform != "win32"

    for candidate in [port] if port else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        try:
            return Server((host, candidate), handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OSError(f"{host} isn't an address of this computer") from error
    taken = f"port {port} isn't" if port else f"none of the {_PORTS} ports from {_FIRST_PORT} is"
    raise OSError(f"{taken} free at {host}; choose another one")
