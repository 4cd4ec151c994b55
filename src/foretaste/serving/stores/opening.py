"""Opening a store by its address."""

from __future__ import annotations

from foretaste.errors import InputError
from foretaste.serving.stores.base import UserStore

ADDRESSES = "memory, lmdb:FOLDER or redis://HOST:PORT/DATABASE"


def open_store(
    url: str,
    *,
    ttl: float | None = None,
    log_ttl: float | None = None,
    sync: bool | None = None,
    timeout: float | None = None,
) -> UserStore:
    """The store at an address: ``memory``, ``lmdb:FOLDER`` or ``redis://HOST:PORT/DATABASE``.

    A Redis need not be up: calls raise `StoreError` until it is.

    Args:
        url: where the store is. For Redis also ``redis://USER:PASSWORD@...`` and ``rediss://``.
        ttl: seconds after its last change for which a state is kept; None keeps it.
        log_ttl: the same for logs; None keeps them, and only with them can states be made again.
        sync: LMDB only: wait for the disk at every write (default), so that acknowledged events
            survive a power cut too. Without, they survive the death of the process.
        timeout: Redis only: seconds to wait for a connection or an answer (default 1).

    Raises:
        InputError: another address, an option that is not this store's, or a folder that cannot
            be written.
        MissingExtraError: the package of the store is not installed.
    """
    kind, colon, rest = url.partition(":")
    redis = kind in ("redis", "rediss")
    for option, value, ours in (("sync", sync, kind == "lmdb"), ("timeout", timeout, redis)):
        if value is not None and not ours:
            raise InputError(f"{option}: not an option of the store {_shown(url)!r}; leave it out")
    if url == "memory":
        from foretaste.serving.stores.memory import MemoryStore

        return MemoryStore(ttl=ttl, log_ttl=log_ttl)
    if kind == "lmdb" and rest:
        from foretaste.serving.stores.lmdb_store import LmdbStore

        return LmdbStore(rest, ttl=ttl, log_ttl=log_ttl, sync=sync is not False)
    if redis and colon:
        from foretaste.serving.stores.redis_store import RedisStore

        patience = 1.0 if timeout is None else timeout
        return RedisStore(url, ttl=ttl, log_ttl=log_ttl, timeout=patience)
    raise InputError(f"store {_shown(url)!r}: not an address of a store. Give {ADDRESSES}")


def _shown(url: str) -> str:
    """The address without what may be a password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition(':')[0]}://...@{tail}" if at else url
