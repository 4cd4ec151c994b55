"""Rankers, the third shape of recommender: a number for each given candidate.

A scorer knows a history before it knows the candidate; here the candidate asks the history. Trained
on impressions (``fit_clicks``), or on the events of a split with sampled negatives (``fit``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from foretaste.data.batches import Batch, query_batches
from foretaste.data.click_batches import ClickBatches, click_batches
from foretaste.data.clicks import ClickTask, Impressions, rating_levels
from foretaste.data.negatives import Negatives
from foretaste.data.sequences import Sequences, offsets_of
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext
from foretaste.recommenders.core.checkpoint import Origin
from foretaste.recommenders.core.click_training import (
    ClickLoss,
    Clicks,
    SampledClicks,
    after_the_first,
    click_metric_of,
    click_tensors,
    log_odds,
    require_labels,
)
from foretaste.recommenders.core.ranker_config import RankerConfig
from foretaste.recommenders.core.ranker_network import History, Memory, RankerNetwork
from foretaste.recommenders.core.ranker_starting import SAME, start_ranker
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.sequence import some_queries
from foretaste.recommenders.core.starting import load_source
from foretaste.recommenders.core.training import Objective, Trainer, TrainingData

TOKENS_WHEN_ASKED = 4_096
"""Events encoded at a time when scoring."""

PAIRS_AT_ONCE = 2_000_000
"""Numbers of the widest layer that are held at a time when scoring (8 MB)."""


class Ranker(Recommender):
    """A model whose network judges pairs of a history and a candidate.

    ``recommend`` asks it for the whole catalog, so it answers like any recommender; ``rank`` asks
    it for given candidates.
    """

    Config: ClassVar[type[ModelConfig]] = RankerConfig
    network: RankerNetwork
    rating_values: np.ndarray = np.zeros(0, np.float32)
    """The different ratings of the task it was trained on, ascending; empty without ratings."""

    @abstractmethod
    def _network(self, items: int, levels: int) -> RankerNetwork:
        """A fresh network for a catalog of this size and this many different ratings."""

    def rank(
        self,
        histories: Sequences | Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        *,
        ratings: Sequence[Sequence[float]] | None = None,
    ) -> list[np.ndarray]:
        """The probability that each candidate is chosen, given the history.

        Args:
            histories: as of ``recommend``; an empty one is answered by what most choose.
            candidates: item ids, a list for each history. An id outside the catalog is judged as
                an item of which nothing is known.
            ratings: of the events of ``histories``, NaN where there is none; of use to a model
                trained on ratings.

        Returns:
            For each history float64 ``[candidates]``, in the order given.

        Raises:
            InputError: when the model is not fitted, or lengths differ.
        """
        catalog = self._fitted_catalog()
        if isinstance(candidates, str) or any(isinstance(one, str) for one in candidates):
            raise InputError("candidates must be a list of lists of item ids, one for each query.")
        known, levels = self._with_levels(histories, ratings)
        if len(candidates) != len(known):
            raise InputError(
                f"candidates has {len(candidates)} lists for {len(known)} histories. "
                "Give one for each."
            )
        flat = [str(item) for one in candidates for item in one]
        count = np.array([len(one) for one in candidates], np.int64)
        rows = np.repeat(np.arange(len(known)), count)
        asked = Impressions(
            rows.astype(np.int32),
            known.lengths[rows].astype(np.int32),
            catalog.numbers(flat).astype(np.int32),
            np.zeros(len(flat), bool),
            np.zeros(len(flat), np.int64),
        )
        found = self._probabilities(known, levels, asked)
        return np.split(found, np.cumsum(count)[:-1]) if len(count) else []

    def click_probabilities(self, task: ClickTask, impressions: Impressions) -> np.ndarray:
        """The probability of a click for each impression of a task, float64 ``[impressions]``.

        Raises:
            InputError: when the model is not fitted, or was fitted on another catalog.
        """
        catalog = self._fitted_catalog()
        if len(catalog) != len(task.catalog) or catalog.item_ids != task.catalog.item_ids:
            raise InputError(
                f"this {self.name} knows another catalog ({len(catalog):,} items) than the task "
                f"({len(task.catalog):,}). Fit it on the task."
            )
        return self._probabilities(task.events, task.levels, impressions)

    def fit_clicks(self, task: ClickTask, run: RunContext | None = None) -> FitReport:
        """Learn from the impressions of ``task.train``; stop early by those of ``task.valid``.

        Raises:
            InputError: when train or valid has one label only, or no user of valid has both and
                ``click_metric`` is ``gauc``.
        """
        config: RankerConfig = self.config
        require_labels(task, config.click_metric)
        self.catalog, self.popularity = task.catalog, task.popularity
        self.rating_values = task.rating_values if task.levels is not None else np.zeros(0, "f4")

        def validate() -> float:
            found = self.click_probabilities(task, task.valid)
            return click_metric_of(task.valid, found, config.click_metric)

        budget = config.train.batch_tokens
        data = Clicks(task.events, task.levels, task.train, config.max_length, budget)
        # Of what stops a training, more is better.
        name = "-log_loss" if config.click_metric == "log_loss" else config.click_metric
        shown = np.bincount(task.train.items, minlength=len(task.catalog))
        try:
            checked = validate if len(task.valid) else None
            return self._train(data, checked, name, run or RunContext(), task.popularity, shown)
        except BaseException:
            self.catalog = None  # half a model must not answer
            raise

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        config: RankerConfig = self.config
        self.rating_values = np.zeros(0, np.float32)
        clicks = after_the_first(split.train)
        if not len(clicks):
            raise InputError(
                "no user has two events in train, so no event has a history to learn from. "
                "Use a model that needs none, such as popularity."
            )
        asked = some_queries(split.valid, config.train.validate_queries, run.seed)
        metric = config.train.metric

        def validate() -> float:
            answers = rank_queries(self, asked, [metric])
            return float(answers.metrics[metric].mean())

        data = SampledClicks(split.train, clicks, Negatives(split.train, split.popularity), config)
        clicked = np.bincount(clicks.items, minlength=split.items)
        shown = clicked + len(clicks) * config.negatives / split.items  # as is expected
        checked = validate if len(asked) else None
        return self._train(data, checked, metric, run, clicked, shown)

    def _train(
        self,
        data: TrainingData,
        validate: Callable[[], float] | None,
        metric: str,
        run: RunContext,
        clicked: np.ndarray,
        shown: np.ndarray,
    ) -> FitReport:
        """``clicked`` and ``shown`` ``[items]`` count the impressions to learn from."""
        config: RankerConfig = self.config
        torch.manual_seed(run.seed)
        items = len(self._fitted_catalog())
        self.network = self._network(items, len(self.rating_values))
        trust = shown / np.maximum(shown + config.shrink, 1)
        self.network.trust[:items] = torch.from_numpy(trust)
        self.network.often.data[:items] = torch.from_numpy(log_odds(clicked, shown))
        if config.start_from is not None:
            self._start_from(config.start_from, data, run.seed)
        loss, origin = ClickLoss(self.network), Origin(self.version)
        objective = Objective(loss, self.network, validate, config.max_length, items, origin)
        train = config.train.model_copy(update={"metric": metric})
        return Trainer(objective, data, train, run).fit()

    def _start_from(self, folder: Path, data: TrainingData, seed: int) -> None:
        same = [field for field in SAME if field in type(self.config).model_fields]
        source = load_source(self, folder, same)
        if not np.array_equal(source.rating_values, self.rating_values):
            raise InputError(
                f"model.start_from = {folder}: was trained on other ratings. Train it on the same "
                "data."
            )
        batches = cast(ClickBatches, data.batches(np.random.default_rng(seed)))
        start_ranker(self.network, source.network, batches, click_tensors, seed)

    @property
    def record_bytes(self) -> int:
        """Bytes kept of an event."""
        return self.network.record_bytes

    @property
    def window(self) -> int:
        """Records of a user that can matter; older ones may be dropped."""
        return self.config.max_length

    @property
    def readable(self) -> int:
        """Events of a history that can matter."""
        return self.config.max_length

    @torch.no_grad()
    def pack(self, events: Sequences) -> list[np.ndarray]:
        """What is to be kept of events, for each row uint8 ``[n, record_bytes]``.

        A record depends on its event alone: it stays true whatever follows.
        """
        items = torch.from_numpy(events.items).to(self.network.items.weight.device)
        lengths = torch.tensor([events.events], device=items.device)
        records = self._asked().pack(History(items[None], None, lengths))[0]
        return np.split(records.cpu().numpy(), events.offsets[1:-1])

    def score_items(self, histories: Sequences, items: np.ndarray) -> Tensor:
        """The logits ``[B, n]`` of these item numbers alone; no history may be empty."""
        network = self._asked()
        device = network.items.weight.device

        def remember(batch: Batch) -> Memory:
            read, lengths = torch.from_numpy(batch.items), torch.from_numpy(batch.lengths)
            return network.remember(History(read.to(device), None, lengths.to(device).long()))

        return self._judged(histories, remember, items)

    def score_records(self, states: Sequence[np.ndarray], items: np.ndarray) -> Tensor:
        """The logits of ``score_items`` from what is kept alone.

        Args:
            states: the records of each history (``pack``), oldest first; at least one of each.
            items: item numbers int ``[n]``.
        """
        network = self._asked()
        device = network.items.weight.device
        records = torch.from_numpy(np.concatenate(states)).to(device)
        lengths = np.array([len(state) for state in states], np.int64)

        def recall(batch: Batch) -> Memory:
            return network.recall(records[torch.from_numpy(batch.items).to(device)])

        places = Sequences(np.arange(len(records), dtype=np.int32), offsets_of(lengths))
        return self._judged(places, recall, items)

    @torch.no_grad()
    def _judged(
        self, histories: Sequences, memory_of: Callable[[Batch], Memory], items: np.ndarray
    ) -> Tensor:
        """Logits ``[B, n]``; as many pairs at a time as ``PAIRS_AT_ONCE`` allows."""
        network = self.network
        device = network.items.weight.device
        asked = torch.from_numpy(items.astype(np.int64)).to(device)
        scores = torch.empty(len(histories), len(asked), device=device)
        for batch in query_batches(histories, self.config.max_length, TOKENS_WHEN_ASKED):
            memory = memory_of(batch)
            ends = torch.from_numpy(batch.lengths).to(device).long()[:, None]
            block = max(1, PAIRS_AT_ONCE // network.widest(*batch.items.shape))
            rows = torch.from_numpy(batch.rows).to(device)
            for first in range(0, len(asked), block):
                found = network.judge(memory, asked[None, first : first + block], ends)
                scores[rows, first : first + block] = found.float()
        return scores

    def _score(self, histories: Sequences) -> Tensor:
        return self.score_items(histories, np.arange(len(self.popularity)))

    @torch.no_grad()
    def _probabilities(
        self, events: Sequences, levels: np.ndarray | None, asked: Impressions
    ) -> np.ndarray:
        network, config = self._asked(), self.config
        device = network.items.weight.device
        found = np.empty(len(asked))
        for batch in click_batches(events, levels, asked, config.max_length, TOKENS_WHEN_ASKED):
            logits = network(*click_tensors(batch, device))
            real = batch.index >= 0
            found[batch.index[real]] = torch.sigmoid(logits.double()).cpu().numpy()[real]
        return found

    def _asked(self) -> RankerNetwork:
        if self.network.training:  # asking every module takes as long as judging a few items
            self.network.eval()
        return self.network

    def _with_levels(
        self,
        histories: Sequences | Sequence[Sequence[str]],
        ratings: Sequence[Sequence[float]] | None,
    ) -> tuple[Sequences, np.ndarray | None]:
        """Known events in this catalog's numbers, and their rating levels."""
        if ratings is None:
            return self._number(histories)[0], None
        if not isinstance(histories, Sequences):
            self._number(histories)  # says what is wrong with it
            flat = [str(item) for one in histories for item in one]
            lengths = np.array([len(one) for one in histories], np.int64)
            numbers = self._fitted_catalog().numbers(flat).astype(np.int32)
            histories = Sequences(numbers, offsets_of(lengths))
        if [len(one) for one in ratings] != histories.lengths.tolist():
            raise InputError("ratings must be lists as long as those of histories, one for each.")
        values = np.array([value for one in ratings for value in one], np.float32)
        places = np.arange(histories.events)
        # What stays of the places tells which ratings stay.
        known = self._number(Sequences(histories.items, histories.offsets, places))[0]
        assert known.times is not None
        levels = rating_levels(values, self.rating_values)[known.times]
        return known, levels if len(self.rating_values) else None

    def _arrays(self) -> dict[str, np.ndarray]:
        state = self.network.state_dict()
        arrays = {f"network/{name}": value.detach().cpu().numpy() for name, value in state.items()}
        return {"rating_values": self.rating_values, **arrays}

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.rating_values = arrays.pop("rating_values")
        self.network = self._network(len(self._fitted_catalog()), len(self.rating_values))
        state = {
            name.removeprefix("network/"): torch.from_numpy(value) for name, value in arrays.items()
        }
        self.network.load_state_dict(state)
