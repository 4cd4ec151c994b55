"""What interactions something was learnt from, so that a later experiment can tell a leak."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from foretaste.data.catalog import Catalog
from foretaste.data.sequences import Sequences


@dataclass(frozen=True)
class LearntFrom:
    """Interactions that went into something that outlives its experiment, such as codes.

    Attributes:
        what: was learnt from them, in words, such as ``co-occurrence``.
        fingerprint: of who chose what in which order; None when nothing is recorded.
        interactions: how many.
        last_time_ms: of the latest, in milliseconds since 1970; None when there are no times.
    """

    what: str
    fingerprint: str | None = None
    interactions: int = 0
    last_time_ms: int | None = None

    @classmethod
    def of(cls, what: str, catalog: Catalog, histories: Sequences) -> Self:
        """The record of histories over the numbers of a catalog."""
        times = histories.times
        last = int(times.max()) if times is not None and len(times) else None
        return cls(what, fingerprint_of(catalog, histories), histories.events, last)

    @classmethod
    def from_json(cls, values: Any, what: str = "something") -> Self:
        """What ``to_json`` gave; of other values nothing but ``what`` is known.

        Args:
            values: plain values, of which ``what`` may be missing.
            what: they are a record of, where they do not say.
        """
        if not isinstance(values, dict):
            return cls(what)
        what = str(values.get("what", what))
        try:
            last = values["last_time_ms"]
            last = None if last is None else int(last)
            mark = values["fingerprint"]
            return cls(what, None if mark is None else str(mark), int(values["interactions"]), last)
        except (KeyError, TypeError, ValueError):
            return cls(what)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def fingerprint_of(catalog: Catalog, histories: Sequences) -> str:
    """A hash of who chose what in which order, 32 hexadecimal digits.

    The same interactions have the same one whatever the numbers of their items, and whoever is in
    the list without any.
    """
    used, places = np.unique(histories.items, return_inverse=True)
    ids = catalog.frame["item_id"].gather(used)
    order = ids.arg_sort().to_numpy()
    rank = np.empty(len(order), "<i8")
    rank[order] = np.arange(len(order))
    digest = hashlib.blake2b(digest_size=16)
    lengths = histories.lengths
    digest.update(lengths[lengths > 0].astype("<i8").tobytes())
    digest.update(rank[places].tobytes())
    named = ids.gather(order)
    digest.update(named.str.len_bytes().to_numpy().astype("<i8").tobytes())
    digest.update(named.str.join("").item().encode())
    return digest.hexdigest()
