"""What one request may ask for. Beyond it the answer is 4xx, never a slow or a heavy one."""

from __future__ import annotations

MOST_ITEMS = 1_000
"""Items of one list (``k``)."""

MOST_EVENTS = 10_000
"""Events of a history: of a request, and of a user's log as far as it is read, the last ones."""

MOST_CANDIDATES = 10_000
"""Item ids in ``candidates``."""

EVENTS_AT_ONCE = 1_000
"""Events in one call of ``/v1/events``."""

ID_BYTES = 512
"""UTF-8 bytes of a user's or an item's id."""

QUERY_LETTERS = 200
"""Letters of a title that is looked for."""

QUERY_WORDS = 16
"""Words of it that are looked for, the first different ones."""

MOST_MATCHES = 50
"""Titles found for one query."""

EXPLAINED_EVENTS = 20
"""Events that an explanation leaves out in turn, the last ones."""

HEAD_BYTES = 65_536
"""Bytes of a request line with its headers."""

HEAD_SECONDS = 10.0
"""Time to send them in."""

BODY_SECONDS = 20.0
"""Time to send a body in."""

SMALL_BODY = 16_384
"""Bytes of a body that are read whatever else is: of nearly all of them the whole."""

LARGE_BODIES = 32
"""What all bodies may hold at once beyond that, in the size of the largest one that is allowed."""

TOLD_LETTERS = 100
"""Letters of what a request held that an answer says again."""

TOLD_UNKNOWN = 100
"""Ids of a user's log that an answer says it does not know; of the request's own it says all."""

LAST_MILLISECOND = 253_402_300_799_999
"""Of the year 9999, the last that a date can show."""
