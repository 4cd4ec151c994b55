"""The service without HTTP: runs, store, engine, and the threads between them and the requests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Self, TypeVar

from foretaste.data.titles import TitleMatch
from foretaste.errors import InputError
from foretaste.serving.batching import Batcher, Expired, Overloaded
from foretaste.serving.engine import Engine
from foretaste.serving.guarding import GuardedStore
from foretaste.serving.keeping import Keeper, Sweeper
from foretaste.serving.metrics import Metrics
from foretaste.serving.models import ServedRun, load_run, names_of
from foretaste.serving.questions import Answer, Question
from foretaste.serving.reloading import Watcher
from foretaste.serving.settings import Settings
from foretaste.serving.stores import Event, StateChange, StoreError, UserStore, open_store
from foretaste.serving.writing import Append, Forget, Write, write_all

SMALL_CATALOG = 64_000_000
"""Bytes of item vectors up to which one thread of PyTorch answers as fast as several."""

SEARCHES = 64
"""Titles that may be looked for at a time; one more is answered 429."""

MEASURE_SECONDS = 1.0
"""Between two looks at what is told of this moment."""

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class Search(NamedTuple):
    """A title that is looked for in a run's catalog."""

    run: ServedRun
    typed: str
    limit: int


class Service:
    """What the routes call. Made and closed in the event loop that answers them."""

    def __init__(self, settings: Settings, runs: Sequence[ServedRun], store: UserStore) -> None:
        """Nothing runs before ``start``."""
        self.settings, self.metrics = settings, Metrics()
        self.store = GuardedStore(store, failed=self.metrics.store_errors.inc)
        self.engine = Engine(runs, self.store, states=settings.states)
        self._pending: list[StateChange] = []
        metrics, waiting = self.metrics, settings.waiting
        self._asking: Batcher[Question, Answer] = Batcher(
            "asking",
            self._answer,
            waiting=waiting,
            largest=settings.batch,
            heavy=lambda question: question.explain,
            after=self._keep,
            observe=metrics.batch.labels("recommendations").observe,
        )
        self._writing: Batcher[Write, int] = Batcher(
            "writing",
            lambda writes: write_all(self.store, writes, settings.unknown_items),
            waiting=waiting,
            largest=settings.batch,
            observe=metrics.batch.labels("events").observe,
        )
        self._searching: Batcher[Search, list[TitleMatch]] = Batcher(
            "searching",
            lambda asked: [one.run.titles.find(one.typed, one.limit) for one in asked],
            waiting=SEARCHES,
            largest=1,  # none is faster for company, and who has given up is not searched for
        )
        self._keeper = Keeper(self.engine.keep)
        self._sweeper = Sweeper(self.store)
        self._watcher = Watcher(
            self.engine,
            settings.watch_seconds,
            settings.wish,
            self._swapped,
        )

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Load the runs and open the store.

        Raises:
            InputError: when a run cannot be loaded or the store cannot be opened.
        """
        names = names_of(settings.runs)
        runs = [
            load_run(name, path.absolute(), settings.wish)
            for name, path in zip(names, settings.runs, strict=True)
        ]
        _set_threads(settings, runs)
        try:
            store = open_store(
                settings.store_url,
                ttl=settings.ttl,
                log_ttl=settings.log_ttl,
                timeout=settings.store_timeout,
                sync=settings.store_sync,
            )
        except StoreError as error:
            raise InputError(f"--store {settings.store_url}: {error}") from error
        service = cls(settings, runs, store)
        with suppress(StoreError):  # a store that is down is told, and found when it is there
            service.store.ping()
        return service

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        for batcher in (self._asking, self._writing, self._searching):
            batcher.start()
        self._keeper.start()
        self._sweeper.start()
        if self.settings.watch:
            self._watcher.start()
        self._measuring = asyncio.create_task(self._measure_on())

    async def close(self) -> None:
        """Finish what was accepted, write what is to be kept, and close the store."""
        self._measuring.cancel()
        self._watcher.close()
        await asyncio.to_thread(self._sweeper.close)
        for batcher in (self._asking, self._writing, self._searching):
            await batcher.close()
        await asyncio.to_thread(self._keeper.close)
        await asyncio.to_thread(self.store.close)
        self.metrics.close()

    async def recommend(self, question: Question) -> Answer:
        """A list. Raises ``Overloaded``, ``Expired`` or ``Closing``."""
        answer = await self._ask(self._asking, question)
        self.metrics.lists.labels(answer.source).inc()
        self.metrics.state_bytes.inc(answer.state_bytes)
        if answer.degraded:
            self.metrics.degraded.inc()
        return answer

    async def log(self, events: Sequence[Event]) -> list[str]:
        """Write events. When this returns they are as safe as the store keeps them.

        Returns the item ids that no loaded run knows, each once. Raises ``StoreError`` when they
        may not have been written, ``Overloaded``, ``Expired`` or ``Closing``.
        """
        unknown = self._unknown_items([event.item for event in events])
        await self._ask(self._writing, Append(list(events), unknown))
        self.metrics.events.inc(len(events))
        return unknown

    async def forget(self, user: str) -> bool:
        """Remove all of a user; whether there was anything. Raises as ``log``."""
        return bool(await self._ask(self._writing, Forget(user)))

    async def search(self, run: ServedRun, typed: str, limit: int) -> list[TitleMatch]:
        """Items of a run by title. Raises as ``recommend``."""
        return await self._ask(self._searching, Search(run, typed, limit))

    def _unknown_items(self, item_ids: Sequence[str]) -> list[str]:
        """Those that no loaded run knows, each once."""
        unknown = list(dict.fromkeys(item_ids))
        for run in self.engine.runs:
            numbers = run.catalog.numbers(unknown)
            unknown = [item for item, number in zip(unknown, numbers, strict=True) if number < 0]
        return unknown

    async def problems(self) -> list[str]:
        """Why requests cannot be answered as they should be; empty when they can."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self.store.ping), self.settings.seconds)
        except (StoreError, TimeoutError) as error:
            return [str(error) or f"{self.store.store.name}: does not answer"]
        return []

    def figures(self) -> bytes:
        """For Prometheus."""
        self._measure()
        return self.metrics.text()

    def _measure(self) -> None:
        """Set the figures of what is at this moment."""
        self.metrics.store_up.set(self.store.up)
        self.metrics.store_takes.set(self.store.takes)
        self.metrics.waiting.set(self._asking.waiting + self._writing.waiting)

    async def _measure_on(self) -> None:
        """Once a second: with several workers any of them tells the figures of all."""
        while True:
            self._measure()
            await asyncio.sleep(MEASURE_SECONDS)

    async def _ask(self, batcher: Batcher[Asked, Given], asked: Asked) -> Given:
        try:
            return await batcher.ask(asked, self.settings.seconds)
        except Overloaded:
            self.metrics.shed.labels("overload").inc()
            raise
        except Expired:
            self.metrics.shed.labels("deadline").inc()
            raise

    def _swapped(self, old: ServedRun, new: ServedRun) -> None:
        self.metrics.reloads.labels(new.name).inc()
        loaded = [run.fingerprint for run in self.engine.runs]
        self._sweeper.replaced(old.fingerprint, loaded)

    def _answer(self, questions: list[Question]) -> list[Answer]:
        found = self.engine.answer(questions)
        self._pending += found.changes
        return found.answers

    def _keep(self) -> None:
        """Called when the answers are on their way."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        dropped = self._keeper.put(pending)
        if dropped:
            self.metrics.states_dropped.inc(dropped)


def _set_threads(settings: Settings, runs: Sequence[ServedRun]) -> None:
    """One thread of PyTorch for small catalogs; the others of the machine speak HTTP."""
    import torch

    from foretaste.recommenders.core.incremental import IncrementalRecommender

    vectors = [
        run.item_vectors for run in runs if isinstance(run.recommender, IncrementalRecommender)
    ]
    largest = max((one.nbytes for one in vectors), default=0)
    shared = max(1, (os.cpu_count() or 1) // settings.workers)
    torch.set_num_threads(settings.threads or (1 if largest <= SMALL_CATALOG else shared))
    # The thread that computes lets go of the interpreter often; waiting requests need it sooner
    # than after the usual 5 ms when it does not.
    sys.setswitchinterval(0.001)
