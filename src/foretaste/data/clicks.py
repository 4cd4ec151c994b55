"""The click task: what was shown to whom, after which history, and was it chosen?

Made from ratings (chosen means rated high enough) or, where a log only says what was chosen, from
sampled negatives. A history is a stretch of the user's events, known by its end: nothing is stored
per impression but a few numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.dataset import Dataset
from foretaste.data.negatives import Negatives, NegativeSampling
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

ClickSplit = Literal["user-time", "global-time"]

LEVELS = 32
"""Most different ratings that are told apart; finer scales are cut at quantiles."""


@dataclass(frozen=True)
class Impressions:
    """Items that were shown to users.

    Attributes:
        users: int32 ``[n]``, user numbers, the rows of ``ClickTask.events``.
        ends: int32 ``[n]``: the history is the first ``ends`` events of the user's row.
        items: int32 ``[n]``, the candidate; -1 when train does not know it.
        labels: bool ``[n]``, whether it was chosen.
        times: int64 ``[n]``, milliseconds or positions.
    """

    users: np.ndarray
    ends: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def take(self, index: np.ndarray) -> Impressions:
        """These impressions, in this order; ``index`` may also be a mask."""
        return Impressions(
            self.users[index],
            self.ends[index],
            self.items[index],
            self.labels[index],
            self.times[index],
        )


@dataclass(frozen=True)
class ClickTask:
    """Impressions to learn from, to tune on and to report, with the events of their histories.

    Attributes:
        catalog: the vocabulary: the items of ``train``.
        users: String ``[users]``, ids by user number.
        events: one row per user number, in time order, items of the vocabulary only. Rows go on
            after the end of ``train``: what an impression may see is said by its ``ends``.
        levels: int8 ``[events]``, 1 + the place of the event's rating in ``rating_values``, 0
            where it has none; None when the log has no ratings.
        rating_values: float32 ``[levels]``, ascending.
        train: to learn from.
        valid: to tune on.
        test: to report.
        notes: what a reader of the figures must know, one line each.
    """

    catalog: Catalog
    users: pl.Series
    events: Sequences
    levels: np.ndarray | None
    rating_values: np.ndarray
    train: Impressions
    valid: Impressions
    test: Impressions
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that is asked and shown: figures of equal fingerprints may be paired."""
        digest = hashlib.blake2b(digest_size=16)
        arrays = [self.events.offsets, self.events.items, self.levels, self.rating_values]
        for part in (self.train, self.valid, self.test):
            arrays += [part.users, part.ends, part.items, part.labels, part.times]
        for array in arrays:
            if array is not None:
                digest.update(np.int64(len(array)).tobytes())
                digest.update(np.ascontiguousarray(array).data)
        digest.update("\n".join(self.catalog.item_ids).encode())
        return digest.hexdigest()

    @property
    def popularity(self) -> np.ndarray:
        """How often every item was chosen in ``train``, int64 ``[items]``."""
        return np.bincount(self.train.items[self.train.labels], minlength=len(self.catalog))

    def __str__(self) -> str:
        parts = (("train", self.train), ("valid", self.valid), ("test", self.test))
        shown = ", ".join(
            f"{name} {len(part):,} ({part.labels.mean() if len(part) else 0:.0%} clicks)"
            for name, part in parts
        )
        return f"{len(self.catalog):,} items; impressions: {shown}"


def rated_clicks(
    dataset: Dataset,
    *,
    threshold: float = 4.0,
    history: Literal["all", "positives"] = "all",
    kind: ClickSplit = "user-time",
    valid_share: float = 0.1,
    test_share: float = 0.1,
) -> ClickTask:
    """A click task from ratings: every rated event is an impression.

    Args:
        dataset: with ratings. Events without one are in histories, but are not asked for.
        threshold: a rating of this or higher is a click.
        history: ``all`` events before the impression, or only those that were clicks.
        kind: ``user-time`` gives every user's last impressions to test and those before them to
            valid: papers do so, and other users' later events can be learnt. ``global-time`` cuts
            the log at two points in time.
        valid_share: share of the impressions (user-time: of each user's, rounded) in valid.
        test_share: in test.

    Raises:
        InputError: the log has no ratings, an option is wrong, or nothing remains to learn from.
    """
    if dataset.ratings is None or np.isnan(dataset.ratings).all():
        raise InputError(
            f"{dataset.name}: the log has no ratings. Name their column with --rating-col, or make "
            "the task of sampled negatives."
        )
    if history not in ("all", "positives"):
        raise InputError(f'history = "{history}" is unknown. Choose all or positives.')
    rated = ~np.isnan(dataset.ratings)
    clicked = rated & (dataset.ratings >= threshold)
    if clicked[rated].all() or not clicked.any():
        what = "all ratings are" if clicked.any() else "no rating is"
        raise InputError(
            f"{dataset.name}: {what} {threshold:g} or higher, so one label is missing. Ratings lie "
            f"between {np.nanmin(dataset.ratings):g} and {np.nanmax(dataset.ratings):g}."
        )
    parts = _parts(dataset, rated, kind, valid_share, test_share)
    return _task(dataset, parts, clicked, clicked if history == "positives" else None)


def sampled_clicks(
    dataset: Dataset,
    *,
    negatives: int = 4,
    sampling: NegativeSampling = "uniform",
    kind: ClickSplit = "user-time",
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> ClickTask:
    """A click task of a log that only says what was chosen: sampled items stand for the rest.

    Every event is a click; with it come items drawn from the vocabulary that the user never met in
    the whole log, shown at the same moment. Drawing is with replacement; a user who has met
    everything gets none.

    Args:
        dataset: any.
        negatives: how many for every click.
        sampling: ``uniform`` over the items of train, or by their ``popularity`` in it.
        kind: as of ``rated_clicks``.
        valid_share: as of ``rated_clicks``.
        test_share: as of ``rated_clicks``.
        seed: of the drawing.

    Raises:
        InputError: an option is wrong, or nothing remains to learn from.
    """
    if negatives < 1:
        raise InputError(f"negatives = {negatives} must be at least 1 for every click.")
    if sampling not in ("uniform", "popularity"):
        raise InputError(f'sampling = "{sampling}" is unknown. Choose uniform or popularity.')
    every = np.ones(dataset.interactions, bool)
    parts = _parts(dataset, every, kind, valid_share, test_share)
    task = _task(dataset, parts, every, None)
    numbers = _vocabulary(dataset, parts)[1]
    met = dataset.sequences.renumbered(numbers)
    sampler = Negatives(met, task.popularity, sampling)
    made, short = [], 0
    for place, part in enumerate((task.train, task.valid, task.test)):
        rng = np.random.default_rng([seed, place])
        more, missing = with_negatives(part, sampler, negatives, rng)
        made.append(more)
        short += missing
    note = f"{negatives} negatives for every click, {sampling}, of items the user never met"
    lacking = (f"{short:,} negatives are missing: their users met everything",) if short else ()
    return ClickTask(
        task.catalog, task.users, task.events, task.levels, task.rating_values,
        *made, notes=(*task.notes, note, *lacking),
    )  # fmt: skip


def with_negatives(
    clicks: Impressions, sampler: Negatives, negatives: int, rng: np.random.Generator
) -> tuple[Impressions, int]:
    """Clicks, each followed by its negatives, and how many negatives could not be drawn."""
    shown = clicks.take(np.repeat(np.arange(len(clicks)), 1 + negatives))
    first = np.arange(len(shown)) % (1 + negatives) == 0
    items = shown.items.copy()
    items[~first] = sampler.draw(shown.users[~first], rng)
    labels = shown.labels & first
    there = first | (items >= 0)
    whole = Impressions(shown.users, shown.ends, items, labels, shown.times)
    return whole.take(there), int((~there).sum())


def rating_levels(ratings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 + the place of the value nearest to each rating, 0 for NaN: int8 ``[n]``."""
    if not len(values):
        return np.zeros(len(ratings), np.int8)
    middles = (values[1:] + values[:-1]) / 2
    place = np.searchsorted(middles, ratings, side="right") + 1
    return np.where(np.isnan(ratings), 0, place).astype(np.int8)


@dataclass(frozen=True)
class _Parts:
    """Which events are asked for, bool ``[events]`` each."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...]


def _parts(
    dataset: Dataset, shown: np.ndarray, kind: ClickSplit, valid_share: float, test_share: float
) -> _Parts:
    for name, share in (("valid_share", valid_share), ("test_share", test_share)):
        if not 0 < share < 1:
            raise InputError(f"{name} = {share} must lie between 0 and 1.")
    if valid_share + test_share >= 1:
        raise InputError("valid_share and test_share leave nothing to train on.")
    learnt = 1 - valid_share - test_share
    if kind == "user-time":
        stage = _by_user(dataset.sequences, shown, learnt, 1 - test_share)
        note = "user-time: other users' later events may be learnt, so figures are optimistic"
        notes = (note,)
    elif kind == "global-time":
        stage, notes = _by_time(dataset, shown, learnt, 1 - test_share), ()
    else:
        raise InputError(f'kind = "{kind}" is unknown. Choose user-time or global-time.')
    parts = _Parts(shown & (stage == 0), shown & (stage == 1), shown & (stage == 2), notes)
    if not parts.train.any() or not parts.test.any():
        empty = "train on" if not parts.train.any() else "test on"
        raise InputError(f"{dataset.name}: nothing is left to {empty}. Give a longer log.")
    return parts


def _by_user(
    sequences: Sequences, shown: np.ndarray, to_train: float, to_valid: float
) -> np.ndarray:
    """0, 1 or 2 for each event, by its place among those of its user that are shown."""
    before = np.append(0, np.cumsum(shown))
    rows = sequences.rows
    count = np.diff(before[sequences.offsets])  # shown events of each user
    place = before[:-1] - before[sequences.offsets[:-1]][rows]
    first = np.rint(count * to_train)[rows]
    second = np.rint(count * to_valid)[rows]
    return (place >= first).astype(np.int8) + (place >= second)


def _by_time(dataset: Dataset, shown: np.ndarray, to_train: float, to_valid: float) -> np.ndarray:
    times = dataset.sequences.times
    if not dataset.has_time or times is None:
        raise InputError(
            f"{dataset.name}: the log has no times, so it cannot be cut at a point in time. Name "
            'the column with --time-col, or choose kind = "user-time".'
        )
    asked = np.sort(times[shown])
    places = [min(int(share * len(asked)), len(asked) - 1) for share in (to_train, to_valid)]
    valid_cut, test_cut = asked[places]
    if valid_cut == test_cut or valid_cut == asked[0]:
        raise InputError(
            f"{dataset.name}: too few distinct times to cut the log at two points in time "
            f'({len(np.unique(asked))} distinct). Choose kind = "user-time".'
        )
    return (times >= valid_cut).astype(np.int8) + (times >= test_cut)


def _vocabulary(dataset: Dataset, parts: _Parts) -> tuple[np.ndarray, np.ndarray]:
    """The items of train, ascending, and the number of every item of the data set among them."""
    vocabulary = np.unique(dataset.sequences.items[parts.train])
    numbers = np.full(len(dataset.catalog), -1, np.int32)
    numbers[vocabulary] = np.arange(len(vocabulary))
    return vocabulary, numbers


def _task(
    dataset: Dataset, parts: _Parts, clicked: np.ndarray, read: np.ndarray | None
) -> ClickTask:
    """The task that asks for these parts; ``read`` bool ``[events]`` says what histories hold."""
    vocabulary, numbers = _vocabulary(dataset, parts)
    whole = dataset.sequences.renumbered(numbers)
    keep = whole.items >= 0 if read is None else (whole.items >= 0) & read
    kept = np.append(0, np.cumsum(keep))  # kept events before each event of the log
    assert whole.times is not None
    rows, place = whole.rows, np.arange(whole.events)
    # Events of one moment have no order that could be known, so none is history of another.
    fresh = np.append(True, (rows[1:] != rows[:-1]) | (whole.times[1:] != whole.times[:-1]))
    moment = np.maximum.accumulate(np.where(fresh[: whole.events], place, 0))
    ends = kept[moment] - kept[whole.offsets[:-1]][rows]
    asked = Impressions(
        rows.astype(np.int32), ends.astype(np.int32), whole.items, clicked, whole.times
    )
    levels, values = None, np.zeros(0, np.float32)
    if dataset.ratings is not None:
        values = _rating_values(dataset.ratings[parts.train])
        levels = rating_levels(dataset.ratings[keep], values) if len(values) else None
    return ClickTask(
        dataset.catalog.take(vocabulary),
        dataset.users,
        whole.where(keep),
        levels,
        values,
        asked.take(parts.train),
        asked.take(parts.valid),
        asked.take(parts.test),
        (*dataset.notes, *parts.notes),
    )


def _rating_values(ratings: np.ndarray) -> np.ndarray:
    values = np.unique(ratings[~np.isnan(ratings)])
    if len(values) > LEVELS:
        values = np.unique(np.nanquantile(ratings, (np.arange(LEVELS) + 0.5) / LEVELS))
    return values.astype(np.float32)
