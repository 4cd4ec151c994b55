"""What recommenders that write semantic IDs share: codes, training, search, files.

A history is read once by a causal encoder, whose state after an event knows that event and those
before it; from every state a decoder writes the codes of the next item. So one pass over a window
trains the writing of as many items as it has events. What differs between generators is how the
codes are written, and how the catalog is searched for what would be written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from foretaste.codes.beam import FoundItems
from foretaste.codes.table import Codes
from foretaste.codes.tokenizer import FitContext
from foretaste.data.batches import Batch, query_batches
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.errors import InputError
from foretaste.language.tfidf import WORD
from foretaste.recommenders.core.base import ModelConfig, Recommender, RunContext, Wanted
from foretaste.recommenders.core.checkpoint import Origin, read_kept
from foretaste.recommenders.core.code_network import CodeNetwork
from foretaste.recommenders.core.coding import CodedCatalog, code_catalog
from foretaste.recommenders.core.collaborative import collaborative_vectors
from foretaste.recommenders.core.explaining import EVENTS, Describer, Influence, Reason
from foretaste.recommenders.core.generator_config import GeneratorConfig
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.results import FitReport
from foretaste.recommenders.core.search_check import (
    BEST,
    PATHS,
    QUERIES,
    SearchCheck,
    best_found,
    illegal,
)
from foretaste.recommenders.core.sequence import some_queries
from foretaste.recommenders.core.spreading import by_popularity, spread, within
from foretaste.recommenders.core.train_config import TrainConfig
from foretaste.recommenders.core.training import Objective, Trainer

TEXTS_AT_ONCE = 8_192
"""Texts written together when asked: hidden layers of a few MB."""


MANY_WORDS = 6
"""Words of an item's title and text from which codes are better made of them alone: so it was on
validation for products, told in 7 and in 80 words; of films, told in 3, it was not."""


class CodeLoss(nn.Module):
    """The sum, over the events of a batch, of the loss of writing the next item's codes.

    Attributes:
        progress: share of the training that is done, told by ``Trainer``.
    """

    progress: float = 0.0

    def __init__(self, network: CodeNetwork) -> None:
        """``network`` knows what it loses."""
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, half: bool) -> Tensor:
        """A scalar; ``half`` makes catalog products in bfloat16."""
        assert batch.targets is not None
        if not len(batch.items):  # a process's part of a batch of one history: gradients of 0
            weights = [one for one in self.network.parameters() if one.requires_grad]
            return torch.stack([0 * one.sum() for one in weights]).sum()
        device = self.network.codes.numbers.device
        items, targets = (
            torch.from_numpy(part).to(device).long() for part in (batch.items, batch.targets)
        )
        return self.network.loss(items, targets, self.progress, half)


class Asked(NamedTuple):
    """Histories of like length that are asked about together.

    Attributes:
        items: int64 ``[B, P]``, right-padded with 0.
        lengths: int64 ``[B]``.
        hidden: for each the items that are not wanted.
        depth: how many items are wanted of each, at most the catalog's.
    """

    items: Tensor
    lengths: Tensor
    hidden: Sequences | None
    depth: int


class Generator(Recommender):
    """A recommender that writes the codes of items. A subclass names its network and its search."""

    Config: ClassVar[type[ModelConfig]] = GeneratorConfig
    version = 2  # what an event is read as, and over what probabilities add up to 1, is another
    network: CodeNetwork
    codes: Codes

    @abstractmethod
    def _network(self, codes: Codes) -> CodeNetwork:
        """A fresh network for a catalog with these codes."""

    @abstractmethod
    def _index(self, table: np.ndarray) -> Any:
        """What is searched: an index of items with codes int ``[n, L]``."""

    def _whole_index(self) -> Any:
        """What is searched when all items are; that of the network, where it has one."""
        return self._index(self.codes.table)

    @abstractmethod
    def _search(self, asked: Asked, index: Any) -> FoundItems:
        """Rows of ``index`` for each history, at least ``asked.depth`` where there are so many."""

    @torch.no_grad()
    def explain(self, history: Sequence[str], item_ids: Sequence[str]) -> list[Reason]:
        """Why items are, or would be, listed for a history.

        Args:
            history: item ids, oldest first; those outside the catalog are ignored.
            item_ids: what to explain.

        Raises:
            InputError: for an item outside the catalog, or a history of which nothing is known.
        """
        self.network.eval()
        catalog = self._fitted_catalog()
        known = catalog.numbers([str(one) for one in history])
        events = known[known >= 0][-self.config.max_length :]
        goals = catalog.numbers([str(one) for one in item_ids])
        if (goals < 0).any():
            wrong = item_ids[int((goals < 0).argmax())]
            raise InputError(f'explain: item "{wrong}" is not in the catalog.')
        if not len(events):
            raise InputError("explain: nothing of this history is in the catalog.")
        describer = Describer(catalog, self.codes, self.popularity)
        reasons = []
        for goal in goals.tolist():
            codes = [describer.code(goal, level) for level in range(len(self.codes.sizes))]
            told = self._thoughts(events, goal, describer)
            codes = [
                code if one is None else code._replace(thought=one[0], certainty=one[1])
                for code, one in zip(codes, told or [None] * len(codes), strict=True)
            ]
            falls = self._influences(events, goal)
            reasons.append(
                Reason(catalog.item_ids[goal], catalog.titles[goal], tuple(codes), falls)
            )
        return reasons

    def _thoughts(
        self, events: np.ndarray, goal: int, describer: Describer
    ) -> list[tuple[str, float] | None] | None:
        """What thoughts point at, in words, and how surely; None for a network without thoughts."""
        del events, goal, describer
        return None

    def _influences(self, events: np.ndarray, goal: int) -> tuple[Influence, ...]:
        """The last events, the one without which the goal's likelihood falls most first."""
        catalog = self._fitted_catalog()
        if len(events) < 2:
            return ()
        first = max(0, len(events) - EVENTS)
        without = [np.delete(events, place) for place in range(first, len(events))]
        device = self.network.codes.numbers.device
        rows = np.zeros((1 + len(without), len(events)), np.int64)
        rows[0] = events
        rows[1:, :-1] = without
        lengths = torch.tensor([len(events)] + [len(events) - 1] * len(without), device=device)
        goals = torch.full((len(rows),), goal, device=device)
        likely = self.network.likelihood(torch.from_numpy(rows).to(device), lengths, goals)
        falls = (likely[0] - likely[1:]).double().cpu().numpy()
        found = [
            Influence(catalog.item_ids[item], catalog.titles[item], float(fall))
            for item, fall in zip(events[first:].tolist(), falls, strict=True)
        ]
        return tuple(sorted(found, key=lambda one: -one.fall))

    def _fit(self, split: Split, run: RunContext) -> FitReport:
        if run.compile:  # what is compiled is a network's forward, and these have none
            raise InputError(
                f"{self.name}: run.compile = true: networks that write codes are not compiled. "
                "Leave it out."
            )
        beams, usual = self.config.beams, type(self.config).model_fields["beams"].default
        if beams > split.items and beams != usual:  # the default is made to fit
            raise InputError(
                f"{self.name}: beams = {beams:,} is more than the catalog's {split.items:,} items. "
                "Lower it."
            )
        torch.manual_seed(run.seed)
        coded = self._coded(split, run)
        self.codes = coded.codes_for(split.catalog, str(self.config.codes_from))
        if self.config.codes_from is None and (kept := read_kept(run.folder)):
            begun = self._codes_of(kept)
            if begun.sizes == self.codes.sizes:  # made again, they may differ in what was rounded
                self.codes = begun
        self.network = self._network(self.codes)
        self._indexed = self._popular = None
        config: TrainConfig = self.config.train
        asked = some_queries(split.valid, config.validate_queries, run.seed)

        def validate() -> float:
            answers = rank_queries(self, asked, [config.metric])
            return float(answers.metrics[config.metric].mean())

        objective = Objective(
            loss=CodeLoss(self.network),
            network=self.network,
            validate=validate if len(asked) else None,
            length=self.config.max_length,
            items=self.network.vocabulary,
            origin=Origin(self.version, self.codes.table_fingerprint),
            kept=self._code_arrays(),
        )
        report = Trainer(objective, split.train, config, run).fit()
        check = self.check_search(asked.histories if len(asked) else split.train)
        details = {"search": check._asdict()}
        return replace(report, details=details, notes=(*coded.findings, str(check)))

    def _coded(self, split: Split, run: RunContext) -> CodedCatalog:
        config: GeneratorConfig = self.config
        if config.codes_from is not None:
            return CodedCatalog.load_for(split, config.codes_from)
        source, coding = config.source, config.codes
        if source == "auto":
            source = source_of(split.catalog.frame)
        vectors = None
        if source != "text":
            vectors = collaborative_vectors(split.train, split.items, config.source_dim, run.seed)
        if source == "collaborative":
            coding = coding.model_copy(update={"text": None})
        context = FitContext(run.seed, run.device, run.progress, "model.codes.tokenizer.")
        return code_catalog(
            split.catalog, coding, item_vectors=vectors, sequences=split.train, context=context
        )

    @torch.no_grad()
    def check_search(self, histories: Sequences) -> SearchCheck:
        """What is found for the first of some histories, held against the table of codes.

        For as many as it takes little time for, it is held against the exact ranking too, which is
        a search along all paths.
        """
        self.network.eval()
        index, _ = self._searched(None)
        table = torch.from_numpy(self.codes.table).long().to(self.network.codes.numbers.device)
        items, results, wrong, shares = len(table), 0, [], []
        depth = min(max(self.config.beams, BEST), items)
        chosen = histories.take(np.flatnonzero(histories.lengths)[:QUERIES])
        for _, asked in self._asking(chosen, depth):
            found = self._search(asked, index)
            results += int((found.log_probs.isfinite()).sum())
            wrong.append(illegal(found, table))
        some = chosen.take(np.arange(min(len(chosen), PATHS // items)))
        for _, asked in self._asking(some, items):
            found = self._search(asked._replace(depth=depth), index)
            shares += best_found(found, self._search(asked, index), items).tolist()
        share = float(np.mean(shares)) if shares else None
        told = [int(one.sum()) for one in wrong if one is not None]
        count = sum(told) if len(told) == len(wrong) else None
        return SearchCheck(len(chosen), results, count, len(some), share)

    def _score(self, histories: Sequences) -> Tensor:
        return self._scored(histories, Wanted("none"))

    @torch.no_grad()
    def _scored(self, histories: Sequences, wanted: Wanted) -> Tensor:
        """Log-probabilities of what the search finds; the rest comes after, by popularity."""
        if self.network.training:  # the walk through all modules takes as long as a block
            self.network.eval()
        if wanted.allowed is not None and not wanted.allowed.any():
            return self._rest.repeat(len(histories), 1)
        index, numbers = self._searched(wanted.allowed)
        depth = min(max(wanted.depth or 0, self.config.beams), len(numbers))
        scores = self._rest.repeat(len(histories), 1)
        hidden = None
        if wanted.exclude == "seen":
            hidden = within(histories, numbers, len(self.codes))
        for rows, asked in self._asking(histories, depth, hidden):
            spread(scores, rows, self._search(asked, index), numbers)
        return scores

    def _asking(
        self, histories: Sequences, depth: int, hidden: Sequences | None = None
    ) -> Iterator[tuple[np.ndarray, Asked]]:
        """Histories, none of them empty, as they are asked about together, with their rows."""
        device, length = self.network.codes.numbers.device, self.config.max_length
        budget = max(1, TEXTS_AT_ONCE // depth)
        for batch in query_batches(histories, length, budget * length):
            for part in np.array_split(np.arange(len(batch.rows)), -(-len(batch.rows) // budget)):
                rows = batch.rows[part]
                items = torch.from_numpy(batch.items[part]).to(device).long()
                lengths = torch.from_numpy(batch.lengths[part]).to(device).long()
                yield (
                    rows,
                    Asked(items, lengths, None if hidden is None else hidden.take(rows), depth),
                )

    def _searched(self, allowed: np.ndarray | None) -> tuple[Any, np.ndarray]:
        """What is searched, and the item numbers of its rows int64 ``[n]``."""
        if allowed is None:
            if self._indexed is None:
                device = self.network.codes.numbers.device
                self._indexed = self._whole_index().to(device)
            return self._indexed, np.arange(len(self.codes))
        numbers = np.flatnonzero(allowed)
        device = self.network.codes.numbers.device
        return self._index(self.codes.table[numbers]).to(device), numbers

    _indexed: Any = None

    @property
    def _rest(self) -> Tensor:
        """Scores of what no search found: sorting the catalog takes as long as a search of it."""
        if self._popular is None:
            self._popular = by_popularity(self.popularity)
        return self._popular

    _popular: Tensor | None = None

    def _arrays(self) -> dict[str, np.ndarray]:
        state = self.network.state_dict()
        arrays = {f"network/{name}": value.detach().cpu().numpy() for name, value in state.items()}
        return arrays | self._code_arrays()

    def _code_arrays(self) -> dict[str, np.ndarray]:
        codes = {
            "table": self.codes.table,
            "nearest": self.codes.nearest,
            "sizes": np.array(self.codes.sizes, np.int32),
            "ordered": np.array([self.codes.ordered]),
        }
        codes |= {f"book/{level}": book for level, book in enumerate(self.codes.codebooks)}
        return {f"codes/{name}": value for name, value in codes.items()}

    def _codes_of(self, arrays: dict[str, np.ndarray]) -> Codes:
        """What ``_code_arrays`` gave."""
        books = sum(name.startswith("codes/book/") for name in arrays)
        return Codes(
            pl.Series("item_id", self._fitted_catalog().item_ids, dtype=pl.String),
            arrays["codes/table"],
            tuple(arrays["codes/sizes"].tolist()),
            arrays["codes/nearest"],
            tuple(arrays[f"codes/book/{level}"] for level in range(books)),
            bool(arrays["codes/ordered"][0]),
        )

    def _set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        try:
            self.codes = self._codes_of(arrays)
        except InputError as error:
            raise ValueError(str(error)) from error
        self.network = self._network(self.codes)
        self._indexed = self._popular = None
        # Earlier runs also hold weights that their configuration has no use for.
        state = {
            name: torch.from_numpy(arrays[f"network/{name}"]) for name in self.network.state_dict()
        }
        self.network.load_state_dict(state)


def source_of(frame: pl.DataFrame) -> Literal["text", "collaborative", "both"]:
    """What ``source = "auto"`` makes codes of: see ``GeneratorConfig``.

    Args:
        frame: of a catalog, with ``title`` and ``text``.
    """
    told = frame.select(pl.concat_str("title", "text", separator=" ", ignore_nulls=True))
    words = told.to_series().str.count_matches(WORD)
    if int((words > 0).sum()) * 2 < len(frame):
        return "collaborative"
    median = words.filter(words > 0).median()
    return "text" if isinstance(median, float) and median >= MANY_WORDS else "both"
