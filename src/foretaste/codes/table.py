"""A code table: which codes each item of a catalog has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from foretaste.codes.dealing import keys_of
from foretaste.errors import InputError
from foretaste.storage import read_arrays_about, write_arrays

FIT_AGAIN = "Make one with: foretaste codes fit"


@dataclass(frozen=True)
class Codes:
    """The codes of a catalog; row ``i`` of ``table`` belongs to item number ``i``.

    Attributes:
        item_ids: String ``[items]``, unique: the catalog that the codes belong to.
        table: int32 ``[items, L]``; no two rows are equal.
        sizes: how many codes each level has.
        nearest: int32 ``[items, levels]``, the codes before collisions were resolved; without the
            extra level, where there is one.
        codebooks: float32 ``[K, D]`` of each level, in the tokenizer's own space.
        ordered: whether a level refines those before it (residual codes, written from left to
            right) or slots stand side by side (parallel codes, in any order).
    """

    item_ids: pl.Series
    table: np.ndarray
    sizes: tuple[int, ...]
    nearest: np.ndarray
    codebooks: tuple[np.ndarray, ...]
    ordered: bool

    def __post_init__(self) -> None:
        """Raise InputError when the parts do not fit together or two items share their codes."""
        items, levels = self.table.shape
        if levels != len(self.sizes) or len(self.item_ids) != items or len(self.nearest) != items:
            raise InputError(
                f"codes of {items:,} items and {levels} levels do not fit {len(self.item_ids):,} "
                f"item ids and {len(self.sizes)} sizes."
            )
        if items and ((self.table < 0).any() or (self.table.max(0) >= self.sizes).any()):
            raise InputError(f"a code is outside 0..size-1 (sizes {list(self.sizes)}).")
        if self.item_ids.n_unique() < items:
            twice = self.item_ids.filter(self.item_ids.is_duplicated())[0]
            raise InputError(f'item "{twice}" is there twice. Give every item once.')
        keys, first, counts = np.unique(
            keys_of(self.table, self.sizes), return_index=True, return_counts=True
        )
        if len(keys) < items:
            row = self.table[first[counts > 1][0]]
            names = self.item_ids.filter(pl.Series((self.table == row).all(1)))[:2].to_list()
            raise InputError(
                f'items "{names[0]}" and "{names[1]}" have the same codes {row.tolist()}.'
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def levels(self) -> int:
        """Codes of an item, the extra level counted."""
        return len(self.sizes)

    @property
    def moved(self) -> np.ndarray:
        """Items that did not get their nearest codes, bool ``[items]``."""
        return (self.table[:, : self.nearest.shape[1]] != self.nearest).any(1)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the item ids in their order: the same catalog, the same fingerprint."""
        return catalog_fingerprint(self.item_ids)

    @cached_property
    def table_fingerprint(self) -> str:
        """A hash of the items and their codes, on which a network that writes codes is built."""
        digest = hashlib.blake2b(f"{self.fingerprint} {self.sizes}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.table).data)
        return digest.hexdigest()

    def require(self, item_ids: Sequence[str] | pl.Series, place: str = "codes") -> None:
        """Raise InputError unless the codes are of exactly these items, in this order."""
        if catalog_fingerprint(item_ids) == self.fingerprint:
            return
        own = set(self.item_ids.to_list())
        foreign = [item for item in item_ids if item not in own]
        what = (
            f'item "{foreign[0]}" and {len(foreign) - 1:,} more have no codes'
            if foreign
            else "the items are others, or in another order"
        )
        raise InputError(
            f"{place}: codes of another catalog ({len(self):,} items, here {len(item_ids):,}; "
            f"{what}). Fit codes on this catalog: foretaste codes fit"
        )

    def for_items(self, item_ids: Sequence[str] | pl.Series, place: str = "codes") -> Codes:
        """The codes of these items, in this order: of a part of the catalog, say.

        Raises:
            InputError: when an item has no codes.
        """
        asked = pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)})
        own = pl.DataFrame({"item_id": self.item_ids, "row": np.arange(len(self))})
        rows = asked.join(own, on="item_id", how="left", maintain_order="left")["row"]
        if rows.null_count():
            foreign = asked["item_id"].filter(rows.is_null())
            raise InputError(
                f'{place}: {len(foreign):,} items have no codes, "{foreign[0]}" among them. Give '
                "them codes with Tokenizer.assign, or fit on this catalog."
            )
        chosen = rows.to_numpy()
        return replace(
            self,
            item_ids=asked["item_id"],
            table=self.table[chosen],
            nearest=self.nearest[chosen],
        )

    def with_items(self, item_ids: Sequence[str], table: np.ndarray) -> Codes:
        """These codes and those of new items (``Tokenizer.assign``) after them.

        ``nearest`` of the new ones is what they were given: which codes were nearer is not known.

        Raises:
            InputError: when an item or its codes are there already.
        """
        base = self.nearest.shape[1]
        return replace(
            self,
            item_ids=pl.concat([self.item_ids, pl.Series(item_ids, dtype=pl.String)]),
            table=np.concatenate([self.table, table]),
            nearest=np.concatenate([self.nearest, table[:, :base]]),
        )

    def save(self, path: Path | str) -> None:
        """Write one safetensors file."""
        arrays, about = self.to_arrays()
        write_arrays(Path(path), arrays, about)

    @classmethod
    def load(cls, path: Path | str) -> Codes:
        """Read the codes of a file that ``save`` or ``Tokenizer.save`` wrote.

        Raises:
            InputError: when it is missing or damaged.
        """
        arrays, about = read_arrays_about(Path(path), again=FIT_AGAIN)
        return cls.from_arrays(arrays, about, str(path))

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and a JSON-able rest, codes in the fewest bytes that hold them."""
        kind = np.min_scalar_type(max(self.sizes) - 1)
        content = self.item_ids.str.join("").item().encode() if len(self) else b""
        arrays = {
            "codes.table": self.table.astype(kind),
            "codes.nearest": self.nearest.astype(kind),
            "codes.ids": np.frombuffer(content, np.uint8),
            "codes.id_bytes": self.item_ids.str.len_bytes().to_numpy().astype(np.int32),
        }
        arrays |= {f"codes.book.{level}": book for level, book in enumerate(self.codebooks)}
        return arrays, {"sizes": list(self.sizes), "ordered": self.ordered}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], about: dict[str, Any], place: str) -> Codes:
        """What ``to_arrays`` gave.

        Raises:
            InputError: when something is missing or does not fit.
        """
        try:
            content = arrays["codes.ids"].tobytes()
            ends = np.cumsum(arrays["codes.id_bytes"]).tolist()
            starts = [0, *ends[:-1]]
            ids = [content[a:b].decode() for a, b in zip(starts, ends, strict=True)]
            nearest = arrays["codes.nearest"].astype(np.int32)
            return cls(
                pl.Series("item_id", ids, dtype=pl.String),
                arrays["codes.table"].astype(np.int32),
                tuple(int(size) for size in about["sizes"]),
                nearest,
                tuple(arrays[f"codes.book.{level}"] for level in range(nearest.shape[1])),
                bool(about["ordered"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{place}: not a whole file of codes ({error}). Fit them again."
            ) from error


def catalog_fingerprint(item_ids: Sequence[str] | pl.Series) -> str:
    """A hash of item ids in their order."""
    ids = pl.Series("item_id", item_ids, dtype=pl.String)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(len(ids)).tobytes())
    # The lengths keep ("ab", "c") apart from ("a", "bc").
    digest.update(ids.str.len_bytes().to_numpy().astype(np.int64).tobytes())
    digest.update("".join(ids.to_list()).encode())
    return digest.hexdigest()
