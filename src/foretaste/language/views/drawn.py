"""Views without any meaning: random ones, and the crop, mask and reorder of CL4SRec.

Both are made anew in every round. What a view that means something has to beat.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foretaste.errors import InputError
from foretaste.language.views.views import Request, View, Views, exchanged, follows, generator
from foretaste.progress import Progress


class RandomConfig(BaseModel):
    """Random views: ``lumos`` with the language model thrown out.

    Attributes:
        more: items that follow the history in the future view.
        share: of the history that the rephrasing exchanges, one item at least.
        other: items of the counterfactual.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["random"] = "random"
    more: int = Field(default=4, ge=1)
    share: float = Field(default=0.25, gt=0, le=1)
    other: int = Field(default=10, ge=1)


class RandomViews:
    """Items drawn uniformly from what the history does not hold."""

    lasting, batch = False, 4_096

    def __init__(self, config: RandomConfig, items: int) -> None:
        """``items`` is the size of the catalog."""
        self.config, self.items = config, items
        self.identity = f"random {items} {config.model_dump_json()}"

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """See ``ViewMaker``."""
        del progress
        rows = zip(request.histories, request.seeds, strict=True)
        return Views([self._one(history, generator(seed)) for history, seed in rows])

    def _one(self, history: np.ndarray, rng: np.random.Generator) -> View:
        config = self.config
        places = swapped_places(len(history), config.share, rng)
        wanted = config.more + len(places) + config.other
        drawn = unseen(history, self.items, wanted, rng)
        more, drawn = drawn[: config.more], drawn[config.more :]
        swaps = dict(zip(places.tolist(), drawn.tolist(), strict=False))
        return View(follows(history, more), exchanged(history, swaps), drawn[len(swaps) :])


class AugmentConfig(BaseModel):
    """The augmentations of CL4SRec (Xie et al., ICDE 2022, section 3.3).

    Two of three, drawn without replacement, take the places of future and rephrasing. A masked
    event is left out, where the paper puts a token of its own: the network then has not a number
    more than without. The negative of a user alone is made of random items; CL4SRec takes other
    users' sequences, which a device does not have.

    Attributes:
        crop: share of the history that a crop keeps, in one piece.
        mask: share of events that a mask leaves out.
        reorder: share of the history, in one piece, that is shuffled.
        other: items of the negative.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["augment"] = "augment"
    crop: float = Field(default=0.6, gt=0, le=1)
    mask: float = Field(default=0.3, ge=0, lt=1)
    reorder: float = Field(default=0.6, ge=0, le=1)
    other: int = Field(default=10, ge=1)


class AugmentedViews:
    """Crop, mask and reorder."""

    lasting, batch = False, 4_096

    def __init__(self, config: AugmentConfig, items: int) -> None:
        """``items`` is the size of the catalog."""
        self.config, self.items = config, items
        self.identity = f"augment {items} {config.model_dump_json()}"

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """See ``ViewMaker``."""
        del progress
        rows = zip(request.histories, request.seeds, strict=True)
        return Views([self._one(history, generator(seed)) for history, seed in rows])

    def _one(self, history: np.ndarray, rng: np.random.Generator) -> View:
        ways = (self._cropped, self._masked, self._reordered)
        first, second = rng.permutation(3)[:2]
        other = unseen(history, self.items, self.config.other, rng)
        return View(ways[first](history, rng), ways[second](history, rng), other)

    def _cropped(self, history: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first, last = _piece(len(history), self.config.crop, rng)
        return history[first:last].astype(np.int32)

    def _masked(self, history: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out = rng.permutation(len(history))[: int(self.config.mask * len(history))]
        return np.delete(history, out).astype(np.int32)

    def _reordered(self, history: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first, last = _piece(len(history), self.config.reorder, rng)
        found = history.astype(np.int32)
        found[first:last] = rng.permutation(found[first:last])
        return found


def unseen(history: np.ndarray, items: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` different items that the history does not hold, int32."""
    seen = np.unique(history)
    count = min(count, items - len(seen))
    if items > 4 * (count + len(seen)):  # few are hit twice: draw some more, and take the first
        drawn = rng.integers(items, size=2 * count + 16)
        drawn = drawn[~np.isin(drawn, seen)]
        _, first = np.unique(drawn, return_index=True)
        found = drawn[np.sort(first)][:count]
        if len(found) == count:
            return found.astype(np.int32)
    free = np.setdiff1d(np.arange(items), seen)
    return rng.permutation(free)[:count].astype(np.int32)


def swapped_places(length: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Places of a history that are exchanged, ascending; one at least.

    Raises:
        InputError: when the history is empty.
    """
    if not length:
        raise InputError("views: an empty history has none. Ask for users with events only.")
    return np.sort(rng.permutation(length)[: max(1, round(share * length))])


def _piece(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    size = max(1, int(share * length))
    first = int(rng.integers(length - size + 1))
    return first, first + size
