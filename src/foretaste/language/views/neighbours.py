"""Views from item vectors: of titles, or those that came down with the model.

What a device can know of co-occurrence: its own log tells next to nothing (an item that was chosen
once was followed once), and other users' logs are not there. But the item vectors of the common
model, which every round brings, were learnt from what followed what for all. ``received`` makes
views of those, anew in every round.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foretaste.data.catalog import Catalog
from foretaste.errors import InputError
from foretaste.language.embed import TextConfig, embed
from foretaste.language.texts import item_texts
from foretaste.language.tfidf import TfidfConfig
from foretaste.language.views.drawn import swapped_places
from foretaste.language.views.views import (
    Request,
    View,
    Views,
    exchanged,
    follows,
    generator,
    no_view,
)
from foretaste.progress import Progress

DECAY = 0.8
"""Weight of an event relative to the one after it, in what the newest events say together."""


class NeighbourConfig(BaseModel):
    """How views are made of vectors.

    Attributes:
        more: items that follow the history in the future view: the nearest to its newest events,
            one after another, each heard before the next.
        share: of the history whose items the rephrasing exchanges for their nearest.
        other: items of the counterfactual.
        far: share of the catalog, the least like the newest events, that it is drawn from.
        newest: events that are heard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    more: int = Field(default=4, ge=1)
    share: float = Field(default=0.25, gt=0, le=1)
    other: int = Field(default=10, ge=1)
    far: float = Field(default=0.2, gt=0, le=1)
    newest: int = Field(default=10, ge=1)


class TitlesConfig(NeighbourConfig):
    """Views from vectors of titles, categories and texts; ``text`` says how they are made."""

    kind: Literal["titles"] = "titles"
    text: TextConfig = TfidfConfig()


class ReceivedConfig(NeighbourConfig):
    """Views from the item vectors of the common model; see above."""

    kind: Literal["received"] = "received"


class VectorViews(ABC):
    """Views from vectors of the catalog; ``TitleViews`` and ``ReceivedViews`` say which."""

    batch = 1_024
    identity: str
    lasting: bool

    def __init__(self, config: NeighbourConfig) -> None:
        """How views are made."""
        self.config = config

    @abstractmethod
    def vectors(self, request: Request) -> np.ndarray:
        """Unit vectors float32 ``[items, D]``; a zero row is an item of which nothing is known."""

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """See ``ViewMaker``."""
        del progress
        vectors = self.vectors(request)
        known = (vectors != 0).any(1)
        rows = zip(request.histories, request.seeds, strict=True)
        return Views([self._one(vectors, known, one, generator(seed)) for one, seed in rows])

    def _one(
        self, vectors: np.ndarray, known: np.ndarray, history: np.ndarray, rng: np.random.Generator
    ) -> View:
        config = self.config
        allowed = known.copy()
        allowed[history] = False
        taste = heard(vectors, history, config.newest)
        if not allowed.any() or not taste.any():
            return no_view()
        more = continued(vectors, taste, allowed, config.more)
        swaps = self._swaps(vectors, history, allowed, rng)
        other = farthest(vectors, taste, allowed, config.far)
        other = rng.permutation(other)[: config.other].astype(np.int32)
        return View(follows(history, more), exchanged(history, swaps), other)

    def _swaps(
        self,
        vectors: np.ndarray,
        history: np.ndarray,
        allowed: np.ndarray,
        rng: np.random.Generator,
    ) -> dict[int, int]:
        places = swapped_places(len(history), self.config.share, rng)
        places = places[(vectors[history[places]] != 0).any(1)]
        if not len(places):
            return {}
        like = vectors[history[places]] @ vectors.T  # [places, items]
        like = np.where(allowed, like, -np.inf)
        return dict(zip(places.tolist(), like.argmax(1).tolist(), strict=True))


class TitleViews(VectorViews):
    """Nearest titles."""

    lasting = True

    def __init__(
        self,
        config: TitlesConfig,
        catalog: Catalog,
        *,
        cache: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Embed the catalog. ``cache``: a file for the vectors of models.

        Raises:
            InputError: when no item has a title or text.
            MissingExtraError: when a package is missing.
        """
        super().__init__(config)
        texts = texts_of(catalog)
        self._vectors = unit(embed(texts, config.text, cache=cache, progress=progress))
        content = hashlib.blake2b(self._vectors.tobytes(), digest_size=12).hexdigest()
        self.identity = f"titles {content} {config.model_dump_json(exclude={'text'})}"

    def vectors(self, request: Request) -> np.ndarray:
        """Of the texts."""
        del request
        return self._vectors


def texts_of(catalog: Catalog) -> list[str]:
    """Texts of the items, for views by them.

    Raises:
        InputError: when no item has one.
    """
    texts = item_texts(catalog)
    if not any(texts):
        raise InputError(
            "views of titles need titles, and this catalog has none. Give them (--items FILE), "
            'or set views.kind = "received".'
        )
    return texts


class ReceivedViews(VectorViews):
    """Nearest vectors of the common model."""

    lasting = False

    def __init__(self, config: ReceivedConfig) -> None:
        """Nothing is known before the first round."""
        super().__init__(config)
        self.identity = f"received {config.model_dump_json()}"

    def vectors(self, request: Request) -> np.ndarray:
        """Those that came down."""
        if request.vectors is None:
            raise InputError(
                "views of received vectors need item vectors, and none came down. Choose another "
                "views.kind."
            )
        return unit(request.vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def heard(vectors: np.ndarray, history: np.ndarray, newest: int) -> np.ndarray:
    """What the newest events say together, ``[D]``; an event counts ``DECAY`` of the next."""
    recent = history[-newest:]
    weights = DECAY ** np.arange(len(recent) - 1, -1, -1)
    return (weights[:, None] * vectors[recent]).sum(0).astype(np.float32)


def continued(vectors: np.ndarray, taste: np.ndarray, allowed: np.ndarray, count: int) -> list[int]:
    """The ``count`` allowed items that follow, each nearest to what was heard before it."""
    free, found = allowed.copy(), []
    for _ in range(min(count, int(allowed.sum()))):
        scores = np.where(free, vectors @ taste, -np.inf)
        best = int(scores.argmax())
        found.append(best)
        free[best] = False
        taste = DECAY * taste + vectors[best]
    return found


def farthest(
    vectors: np.ndarray, taste: np.ndarray, allowed: np.ndarray, share: float
) -> np.ndarray:
    """The allowed items least like ``taste``: ``share`` of them, one at least; ascending."""
    scores = np.where(allowed, vectors @ taste, np.inf)
    count = max(1, int(share * allowed.sum()))
    last = np.partition(scores, count - 1)[count - 1]
    below = np.flatnonzero(scores < last)
    tied = np.flatnonzero(scores == last)[: count - len(below)]
    return np.sort(np.concatenate([below, tied]))
