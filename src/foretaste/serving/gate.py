"""What a request passes before it reaches a route: path, host, token, size; and what it counts."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_to_bytes

from foretaste.serving.hosts import is_for_us
from foretaste.serving.limits import BODY_SECONDS, LARGE_BODIES, SMALL_BODY, TOLD_LETTERS
from foretaste.serving.metrics import Metrics
from foretaste.serving.settings import same_token

HEALTH = ("/healthz", "/readyz")
"""Paths that are asked by address, whatever the name of the service: nothing of users is there."""

OPEN = (*HEALTH, "/")
PAGE = "/page/"
"""Paths without a token: is it alive, and the page, which holds nothing but itself."""

ROUTES = (
    "/v1/events",
    "/v1/recommendations",
    "/v1/items",
    "/v1/runs",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/",
)
USERS = "/v1/users/"
ASKED_IN_JSON = ("/v1/events", "/v1/recommendations")

SAFE = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
CLOSE = [(b"connection", b"close")]
AGAIN = [(b"retry-after", b"1")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A request that goes no further."""

    def __init__(
        self, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """``detail`` is told to the client."""
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or []


class Gate:
    """ASGI middleware. A body is read here, whole and bounded, before anything is made of it."""

    def __init__(
        self,
        app: App,
        *,
        token: str | None,
        names: Collection[str] | None,
        body_bytes: int,
        metrics: Metrics,
    ) -> None:
        """``token`` None lets everybody in, ``names`` None those who ask for any host."""
        self._app, self._token, self._most = app, token, body_bytes
        self._names = names
        self._metrics = metrics
        self._held = 0  # bytes of bodies, but for the first ``SMALL_BODY`` of each

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *SAFE]
            await send(message)

        try:
            self._check_path(scope)
            self._check_host(scope)
            self._check_token(scope)
            self._check_content(scope)
            async with self._body(scope, receive) as body:
                await self._app(scope, _replayed(body, receive), answer)
        except Refused as refused:
            await _refuse(refused, answer)
        finally:
            route = route_of(scope["path"])
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - begin)

    def _check_path(self, scope: MutableMapping[str, Any]) -> None:
        # The server puts a replacement character where bytes are no UTF-8: another user's id.
        try:
            unquote_to_bytes(scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError:
            raise Refused(400, "the path is not UTF-8") from None

    def _check_host(self, scope: MutableMapping[str, Any]) -> None:
        if self._names is None or scope["path"] in HEALTH:
            return
        # Without any: no browser, as each of them sends one.
        for name, value in scope["headers"]:
            host = value.decode("latin-1")
            if name == b"host" and not is_for_us(host, self._names):
                raise Refused(
                    421,
                    f'the service does not answer to the name "{host[:TOLD_LETTERS]}". Allow it '
                    "with --allowed-host, or ask for a token with FORETASTE_TOKEN",
                )

    def _check_token(self, scope: MutableMapping[str, Any]) -> None:
        path = scope["path"]
        if self._token is None or path in OPEN or path.startswith(PAGE):
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not same_token(token.strip(), self._token):
            raise Refused(
                401,
                "a bearer token is needed: Authorization: Bearer TOKEN",
                [(b"www-authenticate", b"Bearer")],
            )

    def _check_content(self, scope: MutableMapping[str, Any]) -> None:
        """What curl and browsers send unasked (a form, a text) is JSON that is called otherwise."""
        if scope["method"] != "POST" or scope["path"] not in ASKED_IN_JSON:
            return
        given = [value for name, value in scope["headers"] if name == b"content-type"]
        kind = given[0].decode("latin-1").partition(";")[0].strip().lower() if given else ""
        if kind != "application/json" and not re.fullmatch(r"application/.+\+json", kind):
            told = f'is of content-type "{kind[:TOLD_LETTERS]}"' if kind else "has no content-type"
            raise Refused(
                415, f"the body {told}. Send JSON with the header content-type: application/json"
            )

    @asynccontextmanager
    async def _body(
        self, scope: MutableMapping[str, Any], receive: Receive
    ) -> AsyncIterator[bytes]:
        """The whole body; it counts among those that are held as long as it is of use."""
        for name, value in scope["headers"]:
            if name == b"content-length" and (len(value) > 18 or int(value) > self._most):
                raise self._too_large()  # before a byte of it is read
        body = bytearray()
        try:
            await self._read(receive, body)
            yield bytes(body)
        finally:
            self._held -= _beyond_small(body)

    async def _read(self, receive: Receive, body: bytearray) -> None:
        more = True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the request ended before its body")
                    more = message.get("more_body", False)
                    before = _beyond_small(body)
                    body += message.get("body", b"")
                    self._held += _beyond_small(body) - before
                    if len(body) > self._most:
                        raise self._too_large()
                    if len(body) > SMALL_BODY and self._held > LARGE_BODIES * self._most:
                        raise self._too_much()
        except TimeoutError:
            raise Refused(408, f"the body did not come within {BODY_SECONDS:g} s") from None

    def _too_much(self) -> Refused:
        self._metrics.shed.labels("bodies").inc()
        return Refused(429, "too many large bodies come at once", AGAIN)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._most:,} bytes")


def _beyond_small(body: bytearray) -> int:
    return max(0, len(body) - SMALL_BODY)


def route_of(path: str) -> str:
    """The name of a path in figures; ids of users and made-up paths are not told apart."""
    if path in ROUTES:
        return path
    return f"{USERS}{{user_id}}" if path.startswith(USERS) else "other"


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(refused: Refused, send: Send) -> None:
    """Answer, and end the connection: what is left of the request is not read."""
    content = json.dumps({"detail": refused.detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *refused.headers,
        *CLOSE,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
