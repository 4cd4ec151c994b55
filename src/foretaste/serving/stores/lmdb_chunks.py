"""Records that are appended to under a key of LMDB without writing all of them again.

The value of the key is a header and the newest records, the open chunk. When it is full it is
sealed: moved, once and for all, under the key followed by its number. So an append writes at most
one chunk again, and only a read of more than the open chunk looks at others.
"""

from __future__ import annotations

from typing import Any

NUMBER = 4  # bytes, big-endian, so that chunks lie in the order of their age
_LAST = b"\xff" * NUMBER
# What LMDB adds (0.9, mdb.c): the header of a page, of a node, a node's place in the page's index.
_PAGE_HEADER, _NODE_HEADER, _NODE_PLACE = 16, 8, 2


def capacity(width: int, page: int, overhead: int, most: int) -> int:
    """How many records of ``width`` bytes a chunk holds: at most ``most``, at least one.

    A value of up to about half a page shares pages with others; a larger one has pages of its own,
    and what it leaves of the last one is lost. So narrow records fill what can be shared, wide
    ones four pages.

    Args:
        width: bytes of a record.
        page: bytes of a page.
        overhead: bytes of the longer key and of the header.
        most: no chunk is to hold more.
    """
    shared = (_shared(page) - overhead) // width
    return max(
        1, min(most, shared if shared >= 4 else (4 * page - _PAGE_HEADER - overhead) // width)
    )


def append(
    transaction: Any, database: Any, key: bytes, opened: bytes, records: bytes, full: int
) -> bytes:
    """Records after those of the open chunk; what is the open chunk now (the caller puts it).

    Args:
        transaction: that writes.
        database: of the key.
        key: of the records.
        opened: the records of the open chunk so far.
        records: to append.
        full: bytes of a full chunk.
    """
    joined = opened + records
    if len(joined) <= full:
        return joined
    number, at = _newest(transaction, database, key) + 1, 0
    while len(joined) - at > full:
        name = key + number.to_bytes(NUMBER, "big")
        transaction.put(name, joined[at : at + full], db=database)
        number, at = number + 1, at + full
    return joined[at:]


def tail(transaction: Any, database: Any, key: bytes, opened: Any, wanted: int) -> bytearray:
    """The last ``wanted`` bytes of all records, or all there are, in a buffer of the caller's."""
    parts, found = [opened], len(opened)
    if found < wanted:
        with transaction.cursor(database) as cursor:
            there = _to_newest(cursor, key)
            while there and found < wanted:
                parts.append(cursor.value())
                found += len(parts[-1])
                there = cursor.prev() and _is_sealed(cursor.key(), key)
    parts.reverse()
    joined = bytearray().join(parts)
    if found > wanted:
        del joined[: found - wanted]
    return joined


def trim(transaction: Any, database: Any, key: bytes, opened: int, wanted: int) -> None:
    """Drop the sealed chunks that hold none of the last ``wanted`` bytes of all records.

    Args:
        transaction: that writes.
        database: of the key.
        key: of the records.
        opened: bytes of the open chunk.
        wanted: bytes that are to be kept.
    """
    kept, old = opened, []
    with transaction.cursor(database) as cursor:
        there = _to_newest(cursor, key)
        while there:
            if kept >= wanted:
                old.append(bytes(cursor.key()))
            else:
                kept += len(cursor.value())
            there = cursor.prev() and _is_sealed(cursor.key(), key)
    for name in old:
        transaction.delete(name, db=database)


def drop(transaction: Any, database: Any, prefix: bytes) -> int:
    """Remove every entry whose key begins with this; how many there were."""
    dropped = 0
    with transaction.cursor(database) as cursor:
        there = cursor.set_range(prefix)
        while there and bytes(cursor.key()).startswith(prefix):
            dropped += 1
            there = cursor.delete()
    return dropped


def held(transaction: Any, database: Any, prefix: bytes, page: int) -> int:
    """Bytes that all entries under a prefix take in the pages of LMDB, with keys and headers."""
    total = 0
    with transaction.cursor(database) as cursor:
        there = cursor.set_range(prefix)
        while there and bytes(cursor.key()).startswith(prefix):
            key, value = len(cursor.key()), len(cursor.value())
            if key + value <= _shared(page):
                node = _NODE_HEADER + key + value
                total += node + node % 2 + _NODE_PLACE
            else:  # the node has the number of the first of the pages in place of the value
                total += _NODE_HEADER + key + 8 + _NODE_PLACE
                total += -(-(value + _PAGE_HEADER) // page) * page
            there = cursor.next()
    return total


def _shared(page: int) -> int:
    """The longest key and value together that lie in a page with others (at least two fit)."""
    return ((page - _PAGE_HEADER) // 2 & ~1) - _NODE_PLACE - _NODE_HEADER


def _newest(transaction: Any, database: Any, key: bytes) -> int:
    """The number of the newest sealed chunk, -1 if there is none."""
    with transaction.cursor(database) as cursor:
        if not _to_newest(cursor, key):
            return -1
        return int.from_bytes(cursor.key()[-NUMBER:], "big")


def _to_newest(cursor: Any, key: bytes) -> bool:
    """Stand on the newest sealed chunk; False if there is none."""
    there = cursor.prev() if cursor.set_range(key + _LAST) else cursor.last()
    return there and _is_sealed(cursor.key(), key)


def _is_sealed(found: Any, key: bytes) -> bool:
    return len(found) == len(key) + NUMBER and found[: len(key)] == key
