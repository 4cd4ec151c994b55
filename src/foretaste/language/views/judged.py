"""Views by likelihood: candidates of the catalog, kept or rejected by a language model.

A model of 135 million weights writes poor titles, but it knows which title it expects after which.
Candidates come from the vectors of titles; how much likelier the model finds a candidate after
the history's titles than after none (pointwise mutual information, per token, less the mean of
all candidates) says whether it stays. Nothing is generated, so every answer is an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foretaste.data.catalog import Catalog
from foretaste.language.cache import cache_of, key_of
from foretaste.language.embed import TextConfig, embed
from foretaste.language.texts import item_texts
from foretaste.language.tfidf import TfidfConfig
from foretaste.language.views.binding import require_titles
from foretaste.language.views.drawn import swapped_places
from foretaste.language.views.local_model import LocalModelConfig, Question
from foretaste.language.views.neighbours import farthest, heard, unit
from foretaste.language.views.prompts import shown
from foretaste.language.views.views import Request, View, Views, exchanged, follows, generator
from foretaste.progress import Progress, Silent


class Judge(Protocol):
    """Something that knows how likely a text is after another.

    Attributes:
        identity: of the model.
        batch: questions that are answered together.
    """

    identity: str
    batch: int

    def log_probabilities(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """The mean log-probability per token of every continuation of every question."""
        ...


class JudgedConfig(BaseModel):
    """Views by likelihood.

    Attributes:
        model: in this process; an endpoint does not tell likelihoods.
        things: what the items are, in the plural, such as ``films``.
        text: how titles become the vectors that candidates come from.
        newest: events whose titles the model reads.
        near: candidates for the future, the nearest to the newest events.
        far: candidates for the counterfactual, drawn from the ``far_share`` least like them.
        far_share: of the catalog.
        like: candidates for each exchange of the rephrasing, the nearest to the item.
        more: items that follow the history, at most.
        share: of the history that is exchanged, one item at least.
        exchanges: items exchanged, at most.
        other: items of the counterfactual, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["judged"] = "judged"
    model: LocalModelConfig = LocalModelConfig()
    things: str = Field(default="items", min_length=1, max_length=40)
    text: TextConfig = TfidfConfig()
    newest: int = Field(default=4, ge=1)
    near: int = Field(default=8, ge=1)
    far: int = Field(default=6, ge=1)
    far_share: float = Field(default=0.2, gt=0, le=1)
    like: int = Field(default=5, ge=1)
    more: int = Field(default=4, ge=1)
    share: float = Field(default=0.25, gt=0, le=1)
    exchanges: int = Field(default=10, ge=1)
    other: int = Field(default=4, ge=1)


class _Candidates(NamedTuple):
    """Of one history."""

    history: np.ndarray
    near: np.ndarray
    far: np.ndarray
    places: np.ndarray


class JudgedViews:
    """A language model keeps or rejects candidates."""

    lasting = True

    def __init__(
        self,
        config: JudgedConfig,
        judge: Judge,
        catalog: Catalog,
        *,
        cache: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Embed the titles.

        ``cache``: a file for the vectors of models, and for what the judge says of items whatever
        the history is; as in ``embed``.

        Raises:
            InputError: when the catalog has no titles.
        """
        require_titles(catalog)
        self.config, self.judge, self.batch = config, judge, 8 * judge.batch
        self.titles = [shown(title) for title in catalog.titles]
        self.vectors = unit(embed(item_texts(catalog), config.text, cache=cache, progress=progress))
        self.known = (self.vectors != 0).any(1)
        told = config.model_dump_json(exclude={"model"})
        self.identity = f"judged {judge.identity} {told}"
        self._cache = cache_of(cache)
        self._alone: dict[int, float] = {}
        self._like: dict[int, list[int]] = {}

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """See ``ViewMaker``."""
        rows = zip(request.histories, request.seeds, strict=True)
        asked = [self._candidates(history, generator(seed)) for history, seed in rows]
        self._know(asked, progress or Silent())
        questions = [
            Question(self._context(one.history), self._texts([*one.near, *one.far]))
            for one in asked
        ]
        scores = self._ask("judging candidates", questions, progress or Silent())
        views = [self._view(one, told) for one, told in zip(asked, scores, strict=True)]
        return Views(views)

    def _candidates(self, history: np.ndarray, rng: np.random.Generator) -> _Candidates:
        config, none = self.config, np.empty(0, np.int64)
        places = swapped_places(len(history), config.share, rng)[-config.exchanges :]
        places = places[self.known[history[places]]]
        allowed = self.known.copy()
        allowed[history] = False
        taste = heard(self.vectors, history, config.newest)
        if not allowed.any() or not taste.any():
            return _Candidates(history, none, none, places)
        scores = np.where(allowed, self.vectors @ taste, -np.inf)
        near = np.argsort(-scores, kind="stable")[: min(config.near, int(allowed.sum()))]
        far = rng.permutation(farthest(self.vectors, taste, allowed, config.far_share))
        return _Candidates(history, near, np.setdiff1d(far[: config.far], near), places)

    def _know(self, asked: Sequence[_Candidates], progress: Progress) -> None:
        """What is asked of items, not of histories, once for each: likelihood alone, likes."""
        swapped = {int(one.history[place]) for one in asked for place in one.places}
        fresh = sorted(swapped - self._like.keys())
        nearest = {item: self._nearest(item) for item in fresh}
        items = {int(item) for one in asked for item in (*one.near, *one.far)}
        items |= {item for like in nearest.values() for item in like}
        alone = sorted(items - self._alone.keys())
        questions = [
            Question(f"{self._begin()}:", self._texts(alone[first : first + 16]))
            for first in range(0, len(alone), 16)
        ]
        found = self._ask_once("titles alone", questions, progress)
        self._alone |= dict(zip(alone, np.concatenate([[], *found]).tolist(), strict=True))
        questions = [
            Question(f"{self._begin()}: {self.titles[item]};", self._texts(nearest[item]))
            for item in fresh
        ]
        found = self._ask_once("titles like others", questions, progress)
        for item, scores in zip(fresh, found, strict=True):
            order = np.argsort(-self._gain(nearest[item], scores), kind="stable")
            self._like[item] = [nearest[item][place] for place in order]

    def _view(self, one: _Candidates, scores: np.ndarray) -> View:
        """Near candidates above the mean of all follow; far ones below it are against."""
        config, count = self.config, len(one.near)
        gain = self._gain([*one.near, *one.far], scores)
        near, far = gain[:count], gain[count:]
        more = [
            int(one.near[place]) for place in np.argsort(-near, kind="stable") if near[place] > 0
        ]
        other = [one.far[place] for place in np.argsort(far, kind="stable") if far[place] < 0]
        seen = set(one.history.tolist())
        swaps = {}
        for place in one.places:
            free = [item for item in self._like[int(one.history[place])] if item not in seen]
            if free:
                swaps[int(place)] = free[0]
        return View(
            follows(one.history, more[: config.more]),
            exchanged(one.history, swaps),
            np.array(other[: config.other], np.int32),
        )

    def _gain(self, items: Sequence[int], scores: np.ndarray) -> np.ndarray:
        if not len(items):
            return np.empty(0)
        alone = np.array([self._alone[int(item)] for item in items])
        gain = np.nan_to_num(scores - alone)
        return gain - gain.mean()

    def _nearest(self, item: int) -> list[int]:
        scores = np.where(self.known, self.vectors @ self.vectors[item], -np.inf)
        scores[item] = -np.inf
        count = min(self.config.like, int(self.known.sum()) - 1)
        return np.argsort(-scores, kind="stable")[: max(count, 0)].tolist()

    def _begin(self) -> str:
        return f"{self.config.things[0].upper()}{self.config.things[1:]} that one person chose"

    def _context(self, history: np.ndarray) -> str:
        read = history[-self.config.newest :]
        return f"{self._begin()}: " + "; ".join(self.titles[item] for item in read) + ";"

    def _texts(self, items: Sequence[int]) -> tuple[str, ...]:
        return tuple(f" {self.titles[int(item)]}" for item in items)

    def _ask_once(
        self, what: str, questions: list[Question], progress: Progress
    ) -> list[np.ndarray]:
        """As ``_ask``, of questions that come again: what was answered is kept by its content."""
        if self._cache is None:  # rounded as what is kept is, so that it decides nothing
            return [one.astype(np.float32) for one in self._ask(what, questions, progress)]
        identity = f"log-probabilities {self.judge.identity}"
        keys = [
            [
                key_of(identity, f"{len(one.context)} {one.context}{text}")
                for text in one.continuations
            ]
            for one in questions
        ]
        known = self._cache.get(sorted({key for some in keys for key in some}))
        missing = [place for place, some in enumerate(keys) if not known.keys() >= set(some)]
        answers = self._ask(what, [questions[place] for place in missing], progress)
        new = {
            key: np.float32(score)
            for place, scores in zip(missing, answers, strict=True)
            for key, score in zip(keys[place], scores, strict=True)
        }
        if new:
            self._cache.put(list(new), np.array([*new.values()], np.float32)[:, None])
        known |= {key: np.array([score]) for key, score in new.items()}
        return [np.concatenate([known[key] for key in some] or [[]]) for some in keys]

    def _ask(self, what: str, questions: list[Question], progress: Progress) -> list[np.ndarray]:
        """Questions of like length go together, since a batch is as long as its longest."""
        size = [len(one.context) + sum(map(len, one.continuations)) for one in questions]
        order = np.argsort(size, kind="stable")
        found: list[np.ndarray] = [np.empty(0)] * len(questions)
        with progress.task(what, len(questions)) as task:
            for first in range(0, len(order), self.judge.batch):
                some = order[first : first + self.judge.batch]
                answers = self.judge.log_probabilities([questions[place] for place in some])
                for place, answer in zip(some, answers, strict=True):
                    found[place] = answer
                task.advance(len(some))
        return found
