"""What the service keeps of every user: the log of events, and states derived from it."""

from foretaste.serving.stores.base import (
    NAMELESS,
    Event,
    KeptState,
    StateChange,
    StoreDown,
    StoreError,
    StoreSize,
    UserLog,
    UserStore,
)
from foretaste.serving.stores.opening import open_store

__all__ = [
    "NAMELESS",
    "Event",
    "KeptState",
    "StateChange",
    "StoreDown",
    "StoreError",
    "StoreSize",
    "UserLog",
    "UserStore",
    "open_store",
]
