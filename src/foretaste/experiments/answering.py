"""Asking a run for a list, in titles, ids, or the name of a user of its log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from foretaste.data.catalog import Catalog
from foretaste.data.titles import TitleIndex
from foretaste.errors import InputError
from foretaste.experiments.clicks import click_task
from foretaste.experiments.run_folder import RunFolder
from foretaste.experiments.running import reopen_data
from foretaste.recommenders.core.base import Exclude, Recommender
from foretaste.recommenders.core.explaining import Reason
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.core.results import RecommendedItem


@dataclass(frozen=True)
class Question:
    """What is asked: a history in titles, or in item ids, or a user of the log; or nothing.

    Attributes:
        titles: what a person typed, oldest first; matched with tolerance for typing errors. A text
            that is no title as a whole holds several, parted by semicolons.
        item_ids: exact ids, oldest first. A text that is no id as a whole holds several, parted by
            commas, semicolons or blanks.
        user: the id of a user; the history is all that the log knows of them, as far as histories
            of the run's task hold it.
        k: length of the list.
        candidates: ids that may be recommended, written like ``item_ids``; None means all.
        exclude: ``seen`` leaves items of the history out.
        explain: whether reasons are given, which generators can.
    """

    titles: list[str]
    item_ids: list[str]
    user: str | None
    k: int = 10
    candidates: list[str] | None = None
    exclude: Exclude = "seen"
    explain: bool = False


class Matched(NamedTuple):
    """An item of the history, and what it was read from."""

    typed: str
    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Answer:
    """A list, and how the question was understood.

    Attributes:
        items: best first.
        matched: what typed titles and ids were taken for.
        unknown: titles, ids and candidates that the catalog does not hold; they were left out.
        history: the item ids that the list answers to.
        reasons: why each item is listed; None when not asked for.
    """

    items: list[RecommendedItem]
    matched: list[Matched]
    unknown: list[str]
    history: list[str]
    reasons: list[Reason] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values: ``items``, ``matched``, ``unknown``, ``history``, and any ``reasons``."""
        plain = {
            "items": [line._asdict() for line in self.items],
            "matched": [match._asdict() for match in self.matched],
            "unknown": self.unknown,
            "history": self.history,
        }
        if self.reasons is None:
            return plain
        reasons = [
            reason._asdict()
            | {
                "codes": [code._asdict() for code in reason.codes],
                "events": [event._asdict() for event in reason.events],
            }
            for reason in self.reasons
        ]
        return plain | {"reasons": reasons}


def answer(run: RunFolder, question: Question) -> Answer:
    """Recommend for a question.

    Raises:
        InputError: when the question names its history in two ways, the user is not in the log,
            the run has no trained model, or reasons are asked of one that has none.
    """
    named = [_given(question.titles), _given(question.item_ids), question.user is not None]
    if sum(named) > 1:
        raise InputError("give one of --history, --history-ids and --user, not several.")
    recommender = run.recommender()
    assert recommender.catalog is not None
    if question.user is not None:
        events, matched = _of_user(run, question.user), []
        unknown = _missing(list(dict.fromkeys(events)), recommender.catalog)
        left_out = set(unknown)
        history = [item_id for item_id in events if item_id not in left_out]
    else:
        history, matched, unknown = _of_typed(recommender, question)
    candidates = None
    if question.candidates is not None:
        candidates = _ids(question.candidates, recommender.catalog)
        unknown = unknown + _missing(candidates, recommender.catalog)
    lists = recommender.recommend(
        [history], question.k, exclude=question.exclude, candidates=candidates
    )
    if not question.explain:
        return Answer(lists[0], matched, unknown, history)
    if not isinstance(recommender, Generator):
        raise InputError(
            f"--explain: {recommender.name} writes no codes to explain. Train tiger, mdgr or s2gr, "
            "or serve the run and ask with explain."
        )
    listed = [line.item_id for line in lists[0]]
    reasons = recommender.explain(history, listed) if history else []
    return Answer(lists[0], matched, unknown, history, reasons)


def _of_typed(
    recommender: Recommender, question: Question
) -> tuple[list[str], list[Matched], list[str]]:
    catalog = recommender.catalog
    assert catalog is not None
    if _given(question.titles):
        index = TitleIndex(catalog, recommender.popularity)
        found, unknown = index.match(_titles(question.titles, index))
        matched = [Matched(m.typed, catalog.item_ids[m.item], m.title, m.score) for m in found]
    else:
        ids = _ids(question.item_ids, catalog)
        pairs = list(zip(ids, catalog.numbers(ids).tolist(), strict=True))
        unknown = _missing(ids, catalog)
        matched = [
            Matched(item_id, item_id, catalog.titles[number], 100.0)
            for item_id, number in pairs
            if number >= 0
        ]
    return [match.item_id for match in matched], matched, unknown


def _given(texts: list[str]) -> bool:
    return any(text.strip("; \t\n") for text in texts)


def _titles(texts: list[str], index: TitleIndex) -> list[str]:
    """Titles one by one: "Steins;Gate" is one where the catalog says so, else two."""
    found: list[str] = []
    for text in texts:
        whole = ";" not in text or index.holds(text)
        found += [text] if whole else text.split(";")
    return [title.strip() for title in found if title.strip()]


def _ids(texts: list[str], catalog: Catalog) -> list[str]:
    """Ids one by one; one that the catalog holds may contain what parts others."""
    found: list[str] = []
    for text, number in zip(texts, catalog.numbers([text.strip() for text in texts]), strict=True):
        found += [text.strip()] if number >= 0 else re.split(r"[,;\s]+", text)
    return [item_id for item_id in found if item_id]


def _missing(ids: list[str], catalog: Catalog) -> list[str]:
    numbers = catalog.numbers(ids).tolist()
    return [item_id for item_id, number in zip(ids, numbers, strict=True) if number < 0]


def _of_user(run: RunFolder, user: str) -> list[str]:
    recipe, dataset = reopen_data(run)
    place = dataset.users.index_of(user)
    if place is None:
        raise InputError(
            f'{recipe.data.source}: no user "{user}" in the log. '
            "Give a history with --history or --history-ids instead."
        )
    if recipe.clicks is not None:
        task = click_task(dataset, recipe.clicks)
        return [task.catalog.item_ids[item] for item in task.events[place].tolist()]
    ids = dataset.catalog.item_ids
    return [ids[item] for item in dataset.sequences[place].tolist()]
