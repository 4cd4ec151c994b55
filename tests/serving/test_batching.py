"""Requests that wait go together; none waits for company, and none is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from foretaste.serving.batching import Batcher, Closing, Expired, Overloaded


class Squares:
    """Work that can be held up, and that cannot square -1."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(list(numbers))
        assert self.open.wait(20)
        if -1 in numbers:
            raise ValueError("cannot square -1")
        return [number**2 for number in numbers]


def run(work: Squares, test: Callable[[Batcher], Awaitable[None]], **options) -> None:
    async def with_batcher() -> None:
        batcher: Batcher[int, int] = Batcher("test", work, **{"waiting": 100, **options})
        batcher.start()
        try:
            await test(batcher)
        finally:
            work.open.set()
            await batcher.close()

    asyncio.run(with_batcher())


async def ask_all(batcher: Batcher, numbers: range | list[int], seconds: float = 20):
    return await asyncio.gather(
        *(batcher.ask(number, seconds) for number in numbers), return_exceptions=True
    )


def test_what_comes_while_a_batch_is_in_work_goes_together():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        assert await batcher.ask(3, 20) == 9
        work.open.clear()
        first = asyncio.create_task(batcher.ask(1, 20))
        while len(work.batches) < 2:
            await asyncio.sleep(0.001)
        rest = asyncio.create_task(ask_all(batcher, range(2, 22)))
        await asyncio.sleep(0.01)
        assert batcher.waiting == 21
        work.open.set()
        assert await first == 1
        assert await rest == [number**2 for number in range(2, 22)]
        assert batcher.waiting == 0
        assert work.batches == [[3], [1], list(range(2, 18)), list(range(18, 22))]

    run(work, test, largest=16)


def test_one_more_than_may_wait_is_refused_and_the_others_are_answered():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        asked = asyncio.create_task(ask_all(batcher, range(8)))
        await asyncio.sleep(0.01)
        work.open.set()
        found = await asked
        assert found[:5] == [0, 1, 4, 9, 16]
        assert all(isinstance(one, Overloaded) for one in found[5:])
        assert await batcher.ask(7, 20) == 49

    run(work, test, waiting=5)


def test_what_is_too_late_is_not_computed():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        slow = asyncio.create_task(ask_all(batcher, [1], seconds=0.05))
        while not work.batches:
            await asyncio.sleep(0.001)
        late = await ask_all(batcher, [2, 3], seconds=0.05)
        assert all(isinstance(one, Expired) for one in [*late, *await slow])
        work.open.set()
        assert await batcher.ask(4, 20) == 16
        assert [2] not in work.batches and [2, 3] not in work.batches

    run(work, test)


def test_one_that_cannot_be_computed_does_not_take_the_others_with_it():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        first = asyncio.create_task(batcher.ask(5, 20))
        await asyncio.sleep(0.01)
        rest = asyncio.create_task(ask_all(batcher, [2, -1, 3]))
        await asyncio.sleep(0.01)
        work.open.set()
        assert await first == 25
        two, wrong, three = await rest
        assert (two, three) == (4, 9)
        assert isinstance(wrong, ValueError)

    run(work, test)


def test_a_result_that_is_an_error_is_raised():
    async def test() -> None:
        batcher: Batcher[int, int] = Batcher("test", lambda asked: [OSError("gone")], waiting=3)
        batcher.start()
        with pytest.raises(OSError, match="gone"):
            await batcher.ask(1, 20)
        await batcher.close()

    asyncio.run(test())


def test_closing_finishes_what_waits_and_takes_nothing_more():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        asked = asyncio.create_task(ask_all(batcher, range(50)))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.01)
        with pytest.raises(Closing):
            await batcher.ask(1, 20)
        work.open.set()
        assert await asked == [number**2 for number in range(50)]
        await closing

    run(work, test)


def test_what_follows_a_batch_comes_after_its_answers():
    seen: list[str] = []

    async def test() -> None:
        batcher: Batcher[int, int] = Batcher(
            "test",
            lambda asked: asked,
            waiting=3,
            after=lambda: seen.append("after"),
            observe=lambda size: seen.append(f"batch of {size}"),
        )
        batcher.start()
        await batcher.ask(1, 20)
        await batcher.close()

    asyncio.run(test())
    assert seen[:2] == ["batch of 1", "after"]


def test_heavy_ones_are_computed_alone_and_light_ones_wait_for_one_of_them():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        heavy = asyncio.create_task(ask_all(batcher, [101, 102, 103]))
        while not work.batches:
            await asyncio.sleep(0.001)
        light = asyncio.create_task(ask_all(batcher, [1, 2]))
        await asyncio.sleep(0.01)
        work.open.set()
        assert await light == [1, 4]
        assert await heavy == [101**2, 102**2, 103**2]
        assert work.batches == [[101], [1, 2], [102], [103]]
        assert batcher.waiting == 0

    run(work, test, heavy=lambda number: number > 100)


def test_heavy_ones_that_are_too_late_are_not_computed():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        late = await ask_all(batcher, range(101, 165), seconds=0.05)
        assert all(isinstance(one, Expired) for one in late)
        work.open.set()
        assert await batcher.ask(3, 20) == 9
        assert work.batches == [[101], [3]]

    run(work, test, heavy=lambda number: number > 100)


def test_heavy_ones_that_wait_are_finished_at_the_end():
    work = Squares()

    async def test(batcher: Batcher) -> None:
        work.open.clear()
        heavy = asyncio.create_task(ask_all(batcher, [101, 102, 1]))
        while not work.batches:
            await asyncio.sleep(0.001)
        work.open.set()
        await batcher.close()
        assert await heavy == [101**2, 102**2, 1]

    run(work, test, heavy=lambda number: number > 100)
