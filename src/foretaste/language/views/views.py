"""Views: three sequences beside a history, as a device makes them; see ``ViewMaker``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np

from foretaste.data.sequences import Sequences
from foretaste.errors import InputError
from foretaste.progress import Progress

KINDS = ("future", "rephrasing", "counterfactual")


class View(NamedTuple):
    """The views of one history, item numbers int32; an empty array where none could be made.

    Attributes:
        future: the history and what may follow it.
        rephrasing: the history with some items exchanged for like ones, or in another order.
        counterfactual: what a user of another taste might have chosen.
    """

    future: np.ndarray
    rephrasing: np.ndarray
    counterfactual: np.ndarray


class Views(NamedTuple):
    """The views of ``C`` histories.

    Attributes:
        rows: one for each history, in its order.
        asked: titles that a language model gave.
        unmatched: those of them that are no title of the catalog, and were dropped.
        refused: rows of which the language model refused a prompt; the view it was to make is
            empty, and another time it may not be.
    """

    rows: list[View]
    asked: int = 0
    unmatched: int = 0
    refused: tuple[int, ...] = ()

    def sequences(self) -> tuple[Sequences, Sequences, Sequences]:
        """The three kinds, in the order of ``KINDS``, ``C`` rows each."""
        found = [Sequences.from_lists(row[kind].tolist() for row in self.rows) for kind in range(3)]
        return found[0], found[1], found[2]

    @classmethod
    def joined(cls, parts: Sequence[Views]) -> Self:
        """One after another."""
        rows: list[View] = []
        refused: list[int] = []
        for part in parts:
            refused += [len(rows) + row for row in part.refused]
            rows += part.rows
        asked = sum(one.asked for one in parts)
        return cls(rows, asked, sum(one.unmatched for one in parts), tuple(refused))


class Unfinished(InputError):
    """A maker whose language model fails half-way; ``made`` are the views of the rows before."""

    def __init__(self, message: str, made: dict[int, Views]) -> None:
        """``made``: by row of the request, views of one history each."""
        super().__init__(message)
        self.made = made


class Request(NamedTuple):
    """What a maker is asked for: views of ``C`` histories.

    Attributes:
        histories: oldest first, item numbers of the catalog; none is empty.
        seeds: uint64 ``[C]``, where all chance of a history comes from, so that its views do not
            depend on which others are asked for with it.
        vectors: float32 ``[items, D]``, item vectors that came down from the server, where the
            maker wants them.
    """

    histories: Sequences
    seeds: np.ndarray
    vectors: np.ndarray | None = None


class ViewMaker(Protocol):
    """Makes views of histories. It knows the catalog, never another user's history.

    Attributes:
        identity: of the maker and all its settings: two with one identity make equal views.
        lasting: whether views are made once for a history and kept (by content); otherwise they
            are made anew in every round, with the round's own seeds.
        batch: histories that are asked for together before what was made is kept.
    """

    identity: str
    lasting: bool
    batch: int

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """Views of every history.

        Raises:
            Unfinished: when a language model stops answering.
            InputError: when the maker lacks what it needs (a language model, titles, vectors).
        """
        ...


def no_view() -> View:
    """None of the three."""
    empty = np.empty(0, np.int32)
    return View(empty, empty, empty)


def follows(history: np.ndarray, more: Sequence[int] | np.ndarray) -> np.ndarray:
    """A future view: the history, then ``more``; empty without any."""
    if not len(more):
        return np.empty(0, np.int32)
    return np.concatenate([history, np.asarray(more, np.int32)]).astype(np.int32)


def exchanged(history: np.ndarray, swaps: dict[int, int]) -> np.ndarray:
    """A rephrasing: at each place of ``swaps`` another item; empty without any."""
    if not swaps:
        return np.empty(0, np.int32)
    found = np.array(history, np.int32)
    found[list(swaps)] = list(swaps.values())
    return found


def generator(seed: np.uint64, place: int = 0) -> np.random.Generator:
    """Random numbers of one history."""
    return np.random.default_rng([int(seed), place])
