"""Requests that come while others are computed are computed together, in the next batch.

One thread works on one batch at a time. A request that comes when it is idle is taken up at once:
nothing ever waits for company. What waits is bounded, and what has waited too long is left out.
Heavy requests are computed alone and between batches, so that no light one waits for two of them.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")

logger = logging.getLogger(__name__)


class Overloaded(Exception):
    """As many requests wait as may."""


class Expired(Exception):
    """The answer did not come in time."""


class Closing(Exception):
    """The service is being stopped and takes nothing more."""


class _Waiting(NamedTuple):
    asked: object
    answer: asyncio.Future


class Batcher(Generic[Asked, Given]):
    """A thread with a queue before it.

    ``work`` gets a list and gives as many results; a result that is an exception is raised for its
    request alone. When ``work`` itself raises, each request of the batch is tried alone, so that
    one that cannot be computed does not take the others with it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Asked]], Sequence[Given | Exception]],
        *,
        waiting: int,
        largest: int = 64,
        heavy: Callable[[Asked], bool] = lambda asked: False,
        after: Callable[[], None] | None = None,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """The thread starts with ``start``.

        Args:
            name: of the thread.
            work: makes a batch; called in the thread.
            waiting: requests that may wait or be in work at a time.
            largest: requests in a batch.
            heavy: which requests take so long that they are computed alone.
            after: called in the thread when the answers of a batch are on their way.
            observe: told the size of every batch.
        """
        self._work, self._after, self._observe = work, after, observe
        self._most, self._largest, self._is_heavy = waiting, largest, heavy
        self._count = 0  # of requests waiting or in work; touched by the event loop alone
        self._closing = False
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait or are in work."""
        return self._count

    async def ask(self, asked: Asked, seconds: float) -> Given:
        """The result for one request.

        Raises:
            Overloaded: when too many wait already.
            Expired: when there is no result after ``seconds``.
            Closing: after ``close``.
        """
        if self._closing:
            raise Closing
        if self._count >= self._most:
            raise Overloaded
        assert self._loop is not None
        answer: asyncio.Future[Given] = self._loop.create_future()
        self._count += 1
        self._queue.put(_Waiting(asked, answer))
        timer = self._loop.call_later(seconds, _expire, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Finish what waits, take nothing more, and end the thread."""
        self._closing = True
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        assert self._loop is not None
        going, heavy = True, deque[_Waiting]()
        while going or heavy:
            taken = self._take(wait=not heavy) if going else []
            going = going and None not in taken
            light = []
            for one in taken:
                if one is not None:
                    (heavy if self._is_heavy(one.asked) else light).append(one)  # type: ignore[arg-type]
            if light:
                self._do(light)
            if heavy:
                self._do([heavy.popleft()])

    def _do(self, batch: list[_Waiting]) -> None:
        assert self._loop is not None
        # A request that nobody waits for any more is not computed.
        current = [one for one in batch if not one.answer.done()]
        results = self._compute([one.asked for one in current]) if current else []  # type: ignore[misc]
        pairs = list(zip(current, results, strict=True))
        self._loop.call_soon_threadsafe(self._deliver, pairs, len(batch))
        if self._after is not None:
            self._after()

    def _take(self, *, wait: bool) -> list[_Waiting | None]:
        """The first request there is, and those that came meanwhile."""
        taken = [self._queue.get()] if wait else []
        while None not in taken[-1:] and len(taken) < self._largest:
            try:
                taken.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return taken

    def _compute(self, asked: list[Asked]) -> Sequence[Given | Exception]:
        self._observe(len(asked))
        try:
            return self._work(asked)
        except Exception as error:
            if len(asked) == 1:
                logger.exception("a request could not be computed")
                return [error]
        return [result for one in asked for result in self._compute([one])]

    def _deliver(self, pairs: list[tuple[_Waiting, Given | Exception]], count: int) -> None:
        self._count -= count
        for waiting, result in pairs:
            if waiting.answer.done():
                continue
            if isinstance(result, Exception):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)


def _expire(answer: asyncio.Future) -> None:
    if not answer.done():
        answer.set_exception(Expired())
