"""What is known of who asks: from the log and a kept state, or from the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretaste.data.sequences import Sequences, offsets_of
from foretaste.serving.guarding import GuardedStore
from foretaste.serving.limits import MOST_EVENTS, TOLD_UNKNOWN
from foretaste.serving.models import CatalogNumbers, ServedRun
from foretaste.serving.questions import Question
from foretaste.serving.stores import NAMELESS, KeptState, StoreError, UserLog

NO_EVENTS = np.empty(0, np.int32)


@dataclass(slots=True)
class Case:
    """A question with its history in item numbers.

    Attributes:
        question: what was asked.
        items: int32 ``[n]``, the known items of the history, oldest first.
        times: int64 ``[n]`` milliseconds; None for a history of the request without them.
        unknown: ids that the catalog does not hold; of the log the newest to the store.
        candidates: item numbers that may be in the list, int64; None means all.
        log: what was read of the user; None for a history of the request.
        state: what was kept of the user, when it can be continued.
        held: bytes of records that were kept of the user, whether they can be continued or not.
        new: events at the end of ``items`` that ``state`` has not read.
        degraded: the store did not answer.
    """

    question: Question
    items: np.ndarray
    times: np.ndarray | None
    unknown: list[str]
    candidates: np.ndarray | None = None
    log: UserLog | None = None
    state: KeptState | None = None
    held: int = 0
    new: int = 0
    degraded: bool = False


class Histories:
    """Finds the histories of questions to one run."""

    def __init__(self, run: ServedRun, store: GuardedStore, *, states: bool) -> None:
        """``states`` False leaves kept states alone."""
        self._run, self._store = run, store
        self._numbers = CatalogNumbers(run.catalog, store)
        self._keeping = run.incremental if states else None

    def find(self, questions: Sequence[Question]) -> list[Case]:
        """The histories of ``questions``, all users in one round trip to the store."""
        users = [question.user for question in questions if question.user is not None]
        try:
            logs = iter(self._read(users) if users else [])
            cases = [
                self._of_request(question)
                if question.user is None
                else self._of_user(question, *next(logs))
                for question in questions
            ]
        except StoreError:
            cases = [self._of_request(question) for question in questions]
            for case in cases:
                case.degraded = case.question.user is not None
        for case in cases:
            self._number_candidates(case)
        return cases

    def _read(self, users: list[str]) -> list[tuple[UserLog, KeptState | None]]:
        model = self._keeping
        if model is None:
            return self._store.read(users, "", 1, MOST_EVENTS)
        return self._store.read(users, self._run.fingerprint, model.window, MOST_EVENTS)

    def _of_user(self, question: Question, log: UserLog, state: KeptState | None) -> Case:
        if not len(log.items):
            return self._of_request(question)
        numbers = self._numbers.of(log.items)
        known = numbers >= 0
        if np.count_nonzero(known) == len(known):
            case = Case(question, numbers, log.times, [], log=log)
        else:
            strange = np.unique(log.items[~known])
            unknown = self._store.item_ids(strange[strange != NAMELESS][-TOLD_UNKNOWN:])
            case = Case(question, numbers[known], log.times[known], unknown, log=log)
        case.new = len(case.items)
        if state is not None:
            case.held = state.records.nbytes
            self._continue(case, state, known)
        return case

    def _continue(self, case: Case, state: KeptState, known: np.ndarray) -> None:
        """Take up a state, unless making it anew is safer or no more work."""
        assert case.log is not None and self._keeping is not None
        begin = case.log.total - len(known)  # events of the log before those that were read
        first_new = state.consumed - begin
        if not 0 <= first_new <= len(known):
            return
        consumed = int(np.count_nonzero(known[:first_new]))
        whole = len(state.records) >= min(consumed, self._keeping.window)
        if whole and len(case.items) - consumed < self._keeping.readable:
            case.state, case.new = state, len(case.items) - consumed

    def _of_request(self, question: Question) -> Case:
        if not question.history:
            return Case(question, NO_EVENTS, None, [])
        numbers = self._run.catalog.numbers(list(question.history)).astype(np.int32)
        known = numbers >= 0
        unknown = [question.history[place] for place in np.flatnonzero(~known)]
        times = None if question.times is None else np.array(question.times, np.int64)[known]
        return Case(question, numbers[known], times, list(dict.fromkeys(unknown)))

    def _number_candidates(self, case: Case) -> None:
        candidates = case.question.candidates
        if candidates is None:
            return
        numbers = self._run.catalog.numbers(list(candidates))
        case.candidates = np.unique(numbers[numbers >= 0])
        unknown = [candidates[place] for place in np.flatnonzero(numbers < 0)]
        case.unknown = list(dict.fromkeys([*case.unknown, *unknown]))


def sequences_of(rows: Sequence[np.ndarray], times: Sequence[np.ndarray] | None) -> Sequences:
    """Rows of item numbers, and of times where they are known, as ``Sequences``."""
    if len(rows) == 1:
        only = None if times is None else times[0]
        return Sequences(rows[0], np.array([0, len(rows[0])]), only)
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    items = np.concatenate(rows) if rows else NO_EVENTS
    joined = None if times is None else np.concatenate(times)
    return Sequences(items, offsets_of(lengths), joined)
