"""Answers for users: a small step from what is kept of them, or the whole history again.

A returning user is answered from a state: the events that are new since are read by the model, the
list is made, and their records are added to what is kept. The log is the truth: a state that is
missing, older than the window of the log that is read, or another model's is made anew from it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foretaste.errors import InputError
from foretaste.recommenders.core.ranker import Ranker
from foretaste.recommenders.core.results import RecommendedItem
from foretaste.serving.explaining import explain
from foretaste.serving.guarding import GuardedStore
from foretaste.serving.histories import Case, Histories, sequences_of
from foretaste.serving.models import Incremental, ServedRun
from foretaste.serving.questions import Answer, Question
from foretaste.serving.ranking import Ranked, rank_by_records, rank_by_scores, rank_by_vectors
from foretaste.serving.stores import StateChange, StoreError, UserStore

logger = logging.getLogger(__name__)


class UnknownRun(InputError):
    """No loaded run is called so."""


class Answers(NamedTuple):
    """What a batch of questions came to.

    Attributes:
        answers: one for each question, in their order.
        changes: of states, to be kept when the answers are out.
    """

    answers: list[Answer]
    changes: list[StateChange]


class Engine:
    """Loaded runs over a store. ``answer`` and ``keep`` are called from one thread at a time."""

    def __init__(
        self,
        runs: Sequence[ServedRun],
        store: UserStore | GuardedStore,
        *,
        states: bool = True,
    ) -> None:
        """``states`` False computes every answer from the whole history, for comparison."""
        self.store = store if isinstance(store, GuardedStore) else GuardedStore(store)
        self._states = states
        self._runs = {run.name: _RunEngine(run, self.store, states=states) for run in runs}

    @property
    def runs(self) -> list[ServedRun]:
        """The loaded runs, the default one first."""
        return [engine.run for engine in self._runs.values()]

    def run(self, name: str | None = None) -> ServedRun:
        """A run by its name; the default one without.

        Raises:
            UnknownRun: when no loaded run is called so.
        """
        if name is None:
            return next(iter(self._runs.values())).run
        if name not in self._runs:
            known = ", ".join(self._runs)
            raise UnknownRun(f'run "{name}" is not loaded. Choose one of: {known}.')
        return self._runs[name].run

    def swap(self, run: ServedRun) -> None:
        """Answer with ``run`` from now on, in the place of the run of its name."""
        self._runs[run.name] = _RunEngine(run, self.store, states=self._states)

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Answers to questions, those to one run computed together.

        A store that is down makes answers of what the requests hold, marked as degraded.
        """
        by_run: dict[str, list[int]] = defaultdict(list)
        for place, question in enumerate(questions):
            by_run[question.run].append(place)
        answers: list[Answer | None] = [None] * len(questions)
        changes: list[StateChange] = []
        for name, places in by_run.items():
            found = self._runs[name].answer([questions[place] for place in places])
            for place, answer in zip(places, found.answers, strict=True):
                answers[place] = answer
            changes += found.changes
        return Answers([answer for answer in answers if answer is not None], changes)

    def keep(self, changes: Sequence[StateChange]) -> None:
        """Write states. Nothing is lost when the store is down: a state is made again."""
        if not changes:
            return
        try:
            self.store.extend(changes)
        except StoreError as error:
            logger.debug("states not kept: %s", error)

    def recommend(self, question: Question) -> Answer:
        """The answer to one question, its state kept: what the service does, without HTTP."""
        found = self.answer([question])
        self.keep(found.changes)
        return found.answers[0]


class _RunEngine:
    """The answers of one run."""

    def __init__(self, run: ServedRun, store: GuardedStore, *, states: bool) -> None:
        self.run = run
        self._histories = Histories(run, store, states=states)
        self._keeping = run.incremental if states else None
        self._index = None if run.index is None else run.index.index

    def answer(self, questions: Sequence[Question]) -> Answers:
        cases = self._histories.find(questions)
        stepping: list[int] = []
        others: list[int] = []
        for place, case in enumerate(cases):
            steps = self._keeping is not None and case.log is not None and len(case.items)
            (stepping if steps else others).append(place)
        ranked: dict[int, Ranked] = {}
        changes: list[StateChange] = []
        if stepping and self._keeping is not None:
            asked = [cases[place] for place in stepping]
            found, changes = self._step(self._keeping, asked)
            ranked.update(zip(stepping, found, strict=True))
        if others:
            found = rank_by_scores(self.run.recommender, [cases[place] for place in others])
            ranked.update(zip(others, found, strict=True))
        answers = [self._written(case, ranked[place]) for place, case in enumerate(cases)]
        return Answers(answers, changes)

    def _step(
        self, model: Incremental, cases: list[Case]
    ) -> tuple[list[Ranked], list[StateChange]]:
        """Lists of users with a log, and what is to be kept of them."""
        nothing = np.empty((0, model.record_bytes), np.uint8)
        states = [nothing if case.state is None else case.state.records for case in cases]
        fresh = [case.items[len(case.items) - min(case.new, model.readable) :] for case in cases]
        times = [
            case.times[len(case.items) - len(new) :]
            for case, new in zip(cases, fresh, strict=True)
            if case.times is not None
        ]
        new = sequences_of(fresh, times)
        if isinstance(model, Ranker):
            records = model.pack(new)
            whole = [np.concatenate(parts) for parts in zip(states, records, strict=True)]
            found = rank_by_records(model, whole, cases)
        else:
            records, vectors = model.advance(states, new)
            found = rank_by_vectors(vectors, self.run.item_vectors, cases, self._index)
        changes = []
        for case, made in zip(cases, records, strict=True):
            change = self._change(model, case, made)
            if change is not None:
                changes.append(change)
        return found, changes

    def _change(self, model: Incremental, case: Case, records: np.ndarray) -> StateChange | None:
        assert case.log is not None and case.question.user is not None
        consumed = 0 if case.state is None else case.state.consumed
        if case.state is not None and consumed == case.log.total:
            return None
        return StateChange(
            user=case.question.user,
            fingerprint=self.run.fingerprint,
            expected=consumed,
            consumed=case.log.total,
            records=records[-model.window :],
            window=model.window,
            fresh=case.state is None,
            birth=case.log.birth,
        )

    def _written(self, case: Case, ranked: Ranked) -> Answer:
        catalog = self.run.catalog
        ids, titles = catalog.item_ids, catalog.titles
        lines = zip(ranked.items, ranked.scores, strict=True)
        because = None
        if case.question.explain:
            because = explain(self.run.recommender, catalog, case.items, case.times, ranked.items)
        return Answer(
            items=[RecommendedItem(ids[item], titles[item], score) for item, score in lines],
            unknown=case.unknown,
            source="fallback" if not len(case.items) else "state" if case.state else "history",
            fingerprint=self.run.fingerprint,
            degraded=case.degraded,
            logged=0 if case.log is None else case.log.total,
            state_bytes=case.held,
            because=because,
        )
