"""The service without a socket: its application is asked in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from foretaste.serving.app import build_app
from foretaste.serving.service import Service

Told = TypeVar("Told")


def ask(service: Service, talk: Callable[[httpx.AsyncClient], Awaitable[Told]]) -> Told:
    """What ``talk`` makes of a client, while the service is started."""

    async def asked() -> Told:
        app = build_app(service)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x")
        async with app.router.lifespan_context(app), client:
            return await talk(client)

    return asyncio.run(asked())
