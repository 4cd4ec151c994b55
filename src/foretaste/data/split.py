"""Cutting a data set into what may be learnt and what is asked afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.dataset import Dataset
from foretaste.data.sequences import Sequences
from foretaste.errors import InputError

SplitKind = Literal["global-time", "leave-last-out"]


@dataclass(frozen=True)
class Queries:
    """Questions with known answers: what did the user with this history choose next?

    Attributes:
        users: int32 ``[queries]``, user numbers of the data set.
        histories: one row per query, in time order, items of the vocabulary only.
        targets: one row per query, at least one item each; -1 is an item outside the
            vocabulary, which no model can find: it counts as a miss.
    """

    users: np.ndarray
    histories: Sequences
    targets: Sequences

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Split:
    """A data set cut into training sequences and queries.

    Attributes:
        kind: how it was cut.
        catalog: the vocabulary: the items of ``train``; row = item number everywhere below.
        users: String ``[users]``, ids by user number.
        train: one row per user number (empty when the user comes after the cut).
        valid: queries to tune on.
        test: queries to report.
        cuts: first millisecond of ``valid`` and of ``test`` for ``global-time``, else None.
        fingerprint: the data set's.
        notes: what a reader of the figures must know, one line each.
    """

    kind: SplitKind
    catalog: Catalog
    users: pl.Series
    train: Sequences
    valid: Queries
    test: Queries
    cuts: tuple[int, int] | None
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        """Size of the vocabulary."""
        return len(self.catalog)

    @property
    def popularity(self) -> np.ndarray:
        """Interactions of every item in ``train``, int64 ``[items]``."""
        return np.bincount(self.train.items, minlength=self.items)


def split(
    dataset: Dataset,
    kind: SplitKind = "global-time",
    *,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    targets: Literal["all", "next"] = "all",
    min_item_count: int = 1,
    refit: bool = False,
) -> Split:
    """Cut ``dataset`` into train, valid and test.

    ``global-time`` cuts the log at two points in time, so that nothing from after a cut can be
    learnt before it: train ends where the last ``valid_share + test_share`` of the interactions
    begin; a query is a user who is active after the cut, its history is everything before the
    cut, its targets are the items that are new to the user after it. ``leave-last-out`` takes
    every user's last item for test and the one before for valid: common in papers, and it leaks,
    because other users' training events lie after a user's test event.

    Either way, an event held out whose item the user already had is not asked for: a target
    inside its own history is a leak, and no answer that leaves out seen items can hold it.

    Args:
        dataset: what to cut.
        kind: see above.
        valid_share: share of the interactions in the validation window (global-time only).
        test_share: share of the interactions in the test window (global-time only).
        targets: ``all`` new items of a window, or only the ``next`` one (global-time only).
        min_item_count: items with fewer events in train leave the vocabulary. Counted on train
            alone, where a k-core over the whole log would look at the future.
        refit: learn from train and valid together, for a last fit after tuning; ``valid`` is
            then empty.

    Raises:
        InputError: when an option is wrong, the log has no times (global-time), or nothing
            remains to learn from or to test on.
    """
    if targets not in ("all", "next"):
        raise InputError(f'split.targets = "{targets}" is unknown. Choose all or next.')
    if kind == "global-time":
        held = _global_time(dataset, valid_share, test_share)
    elif kind == "leave-last-out":
        held = _leave_last_out(dataset)
    else:
        raise InputError(f'split kind "{kind}" is unknown. Choose global-time or leave-last-out.')

    before_test = ~held.test
    before_valid = before_test & ~held.valid
    in_train = before_test if refit else before_valid
    vocabulary = _vocabulary(dataset, in_train, min_item_count)
    numbers = np.full(len(dataset.catalog), -1, np.int32)
    numbers[vocabulary] = np.arange(len(vocabulary))
    renumbered = dataset.sequences.renumbered(numbers)
    new = ~dataset.sequences.repeats
    in_valid = np.zeros_like(held.valid) if refit else held.valid & new
    result = Split(
        kind=kind,
        catalog=dataset.catalog.take(vocabulary),
        users=dataset.users,
        train=renumbered.where(in_train & (renumbered.items >= 0)),
        valid=_queries(renumbered, before_valid, in_valid, targets),
        test=_queries(renumbered, before_test, held.test & new, targets),
        cuts=held.cuts,
        fingerprint=dataset.fingerprint,
        notes=held.notes,
    )
    if not len(result.test):
        raise InputError(
            f"{dataset.name}: no user has an event to test on after the split. "
            "The log needs users who go on to items that are new to them."
        )
    return result


@dataclass(frozen=True)
class _HeldOut:
    """Events that are not for learning: in every row first those before, then valid, then test."""

    valid: np.ndarray  # bool [events]
    test: np.ndarray  # bool [events]
    cuts: tuple[int, int] | None
    notes: tuple[str, ...]


def _global_time(dataset: Dataset, valid_share: float, test_share: float) -> _HeldOut:
    times = dataset.sequences.times
    if not dataset.has_time or times is None:
        raise InputError(
            f"{dataset.name}: the log has no times, so it cannot be split at a point in time. "
            "Name the column with --time-col, or choose --split leave-last-out."
        )
    for name, share in (("valid_share", valid_share), ("test_share", test_share)):
        if not 0 < share < 1:
            raise InputError(f"split.{name} = {share} must lie between 0 and 1.")
    if valid_share + test_share >= 1:
        raise InputError("split.valid_share and split.test_share leave nothing to train on.")
    notes = ()
    in_test = max(1, round(test_share * len(times)))
    held = min(len(times), max(in_test + 1, round((valid_share + test_share) * len(times))))
    positions = [len(times) - held, len(times) - in_test]
    valid_cut, test_cut = (int(time) for time in np.partition(times, positions)[positions])
    if valid_cut == test_cut and (times < test_cut).any():
        # One moment holds both windows: validation takes the moment before it.
        valid_cut = int(times[times < test_cut].max())
        notes = ("the clock of the log is coarse: the windows are not of the shares asked for.",)
    before_valid, before_test = times < valid_cut, times < test_cut
    if not before_valid.any():
        raise InputError(
            f"{dataset.name}: too few distinct times to cut the log at a point in time "
            f"({len(np.unique(times))} distinct). Choose --split leave-last-out."
        )
    return _HeldOut(before_test & ~before_valid, ~before_test, (valid_cut, test_cut), notes)


def _leave_last_out(dataset: Dataset) -> _HeldOut:
    ends, lengths = dataset.sequences.offsets[1:], dataset.sequences.lengths
    valid, test = np.zeros((2, dataset.interactions), bool)
    # A user with one event has nothing before it; with two, the first stays in train.
    test[ends[lengths >= 2] - 1] = True
    valid[ends[lengths >= 3] - 2] = True
    note = (
        "leave-last-out leaks: training data of some users is later than test data of others, "
        "so figures are optimistic; use global-time to know what a launch would see."
    )
    return _HeldOut(valid, test, None, (note,))


def _vocabulary(dataset: Dataset, in_train: np.ndarray, min_item_count: int) -> np.ndarray:
    """Item numbers of the data set that occur often enough in train, ascending."""
    counts = np.bincount(dataset.sequences.items[in_train], minlength=len(dataset.catalog))
    vocabulary = np.flatnonzero(counts >= max(min_item_count, 1))
    if not len(vocabulary):
        raise InputError(
            f"{dataset.name}: no item has {min_item_count} training interactions. "
            "Lower split.min_item_count."
        )
    return vocabulary


def _queries(sequences: Sequences, known: np.ndarray, asked: np.ndarray, targets: str) -> Queries:
    """One query per row with events ``asked`` for; both masks are bool ``[events]``."""
    answers = sequences.where(asked)
    users = np.flatnonzero(answers.lengths)
    # Rows that ask nothing go first, so that no second copy of the whole log is made.
    asking = np.repeat(answers.lengths > 0, sequences.lengths)
    histories = sequences.where(known & asking & (sequences.items >= 0)).take(users)
    answers = answers.take(users)
    return Queries(
        users.astype(np.int32), histories, answers.first(1) if targets == "next" else answers
    )
