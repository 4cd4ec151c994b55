"""Which names the service answers to: what keeps pages of elsewhere out where there is no token.

A web page can let its own name point at 127.0.0.1 once it is loaded (DNS rebinding). To the browser
the service is then of the page's origin, so that the page may read, write and forget users; but the
``Host`` header still holds the page's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from foretaste.serving.settings import Settings

LOCAL = re.compile(r"[a-z0-9_-]{1,63}", re.ASCII)
"""A name without a dot."""


def names_of_service(settings: Settings, token: str | None) -> frozenset[str] | None:
    """Names that requests may be for, besides those of this machine; None lets any name in.

    Any name will do where a token is asked for, and where the service listens on all addresses,
    unless ``allowed_host`` says which.
    """
    allowed = {name_of(host) for host in settings.allowed_host}
    if not allowed and (token is not None or _is_everywhere(settings.host)):
        return None
    return frozenset(allowed | {name_of(settings.host)})


def is_for_us(header: str, names: Collection[str]) -> bool:
    """Whether a ``Host`` header holds one of ``names``, a loopback address or a local name.

    A name without a dot is local: ``localhost``, or what a service is called among containers. No
    page of the internet has such a name.
    """
    name = name_of(header)
    if name in names or name.endswith(".localhost") or LOCAL.fullmatch(name):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """The name or address of ``host[:port]``, written in one way."""
    host = host.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.removesuffix(".")


def _is_everywhere(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
