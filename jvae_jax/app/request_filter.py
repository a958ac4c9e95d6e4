"""ASGI middleware that lets only the page's own requests through to Gradio."""

# pyright: reportMissingImports=false

import asyncio
import ipaddress
import logging
import re
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

logger = logging.getLogger(__name__)

MAX_UPLOAD = 20 * 2**20
"""Maximum size of an image, in bytes."""
_MAX_BODY = MAX_UPLOAD * 4 // 3 + 2**16
"""Maximum size of a request's body, in bytes: an image in base64, and the fields of an event."""
_MAX_REQUESTS = 8
"""Number of requests handled at once, whose bodies are in memory; further ones wait."""
_TIMEOUT = 120
"""Seconds after which a request is given up, such as one whose body never ends."""
_ROUTES = {
    "HEAD": re.compile("/"),
    # No name may start with a dot, so there is no way out of Gradio's folders.
    "GET": re.compile(
        r"/|/(favicon\.ico|theme\.css|gradio_api/startup-events)|/(assets|static)(/[\w-][\w.-]*)+"
    ),
    "POST": re.compile("/gradio_api/run/predict"),
}
"""Routes that the page needs. Others of Gradio's serve, store, download or edit files."""


class RequestFilter:
    """Refuses requests to other routes, of other sites, and with bodies that are too large.

    Args:
        app: Gradio's ASGI application.
        host: address that the server listens on. A request may be addressed to it, to localhost and
            to any IP address, but not to other names: a site that resolves its own name to this
            computer (DNS rebinding) could use the page otherwise. "0.0.0.0" allows all names. None
            disables the checks of host and origin: a proxy, which may change both, makes them.
    """

    def __init__(self, app: Any, host: str | None) -> None:
        self.app = app
        self.host = host
        self.requests = asyncio.Semaphore(_MAX_REQUESTS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, as ASGI defines it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        route = _ROUTES.get(scope["method"])
        if not self._is_own_site(headers.get("host", ""), headers.get("origin")):
            await _error(403, "This page doesn't answer other sites.")(scope, receive, send)
        elif route is None or not route.fullmatch(scope["path"]):
            await _error(404, "Not found.")(scope, receive, send)
        else:
            await self._forward(scope, receive, send)

    def _is_own_site(self, host: str, origin: str | None) -> bool:
        if self.host is None:
            return True
        if origin is not None and origin.partition("://")[2] != host:
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        is_any_allowed = self.host in ("0.0.0.0", "::")
        return is_any_allowed or name in ("localhost", self.host.lower()) or _is_address(name)

    async def _forward(self, scope: Any, receive: Any, send: Any) -> None:
        size = 0

        async def receive_limited() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > _MAX_BODY:
                raise HTTPException(413, "The request is too large.")
            return message

        # Gradio takes settings from the query, such as the file of a saved session ("deep link").
        scope = {**scope, "query_string": b""}
        try:
            async with self.requests, asyncio.timeout(_TIMEOUT):
                await self.app(scope, receive_limited, send)
        except TimeoutError:
            logger.warning("gave up a request after %d seconds", _TIMEOUT)
        except Exception as error:
            logger.warning("a request failed: %.300r", error)
            await _error(400, "The request failed.")(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _error(status: int, message: str) -> JSONResponse:
    """A response whose message Gradio's frontend shows."""
    return JSONResponse({"error": message}, status)
