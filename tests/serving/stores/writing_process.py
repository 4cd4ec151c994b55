"""A process that writes to a store until it is done or killed.

    python writing_process.py URL NAME COUNT

It appends COUNT events, each to one of a few users, and after each brings that user's state up to
date. Once an event is acknowledged by the store, its number goes to standard output.
"""

from __future__ import annotations

import hashlib
import sys
import time

import numpy as np

from foretaste.serving.stores import Event, StateChange, StoreError, UserStore, open_store

USERS = ["ann", "bob", "cid"]
WINDOW = 8


def record(item: str) -> bytes:
    """What a state keeps of an item here."""
    return hashlib.blake2b(item.encode(), digest_size=10).digest()


def records(items: list[str]) -> np.ndarray:
    """One record for each item, uint8 [n, 10]."""
    return np.frombuffer(b"".join(map(record, items)), np.uint8).reshape(-1, 10)


def bring_up_to_date(store: UserStore, user: str) -> None:
    """Read log and state, and append the records that are missing."""
    [(log, state)] = store.read([user], "model", WINDOW, 10_000)
    since = 0 if state is None else state.consumed
    made = records(store.item_ids(log.items[since:]))
    store.extend(
        [StateChange(user, "model", since, log.total, made, WINDOW, state is None, log.birth)]
    )


def main() -> None:
    """Write, and wait for a store that is down."""
    url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = open_store(url, timeout=20 if url.startswith("redis:") else None)
    for n in range(count):
        user = USERS[n % len(USERS)]
        while True:
            try:
                store.append([Event(user, f"{name}-{n}", n)])
                break
            except StoreError:
                print("down", flush=True)
                time.sleep(0.05)
        print(n, flush=True)
        try:
            bring_up_to_date(store, user)
        except StoreError:
            print("down", flush=True)


if __name__ == "__main__":
    main()
