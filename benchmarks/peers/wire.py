"""What both peer workers share: the line protocol, the sequence table and the timed batch feed.

A worker reads one JSON command a line on stdin and answers one JSON object a line on stdout. A
command that fails is answered with {"error": ..., "traceback": ...} and the worker lives on.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pandas as pd

Json = dict[str, Any]
Batch = TypeVar("Batch")
ENDLESS = 10**9

DEFAULTS: Json = {
    "dim": 64,
    "layers": 2,
    "heads": 2,
    "max_len": 50,
    "dropout": 0.2,
    "lr": 1e-3,
    "threads": 2,
    "seed": 2020,
    "extra": {},
}


class Loader(Protocol):
    """The little that is asked of a library's own training data loader."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Peer(Protocol):
    """The commands of a worker; see each worker for what it measures."""

    def load(self, data: str, config: Json) -> Json: ...

    def train(self, seconds: float) -> Json: ...

    def train_epoch(self) -> Json: ...

    def evaluate(self, masked: bool, part: str, seconds_only: bool = False) -> Json: ...

    def score_metrics(self, scores: str, targets: str) -> Json: ...


class Window(Generic[Batch]):
    """Batches of a library's own loader, counted and timed, for one call of its training loop.

    The clock runs from the request for the first batch until the training loop comes back for
    more after its last step: data loading and every step are inside, the loop's set-up is not.
    Without a deadline the window is the epoch in hand; with one it ends after the first step
    that passes it, going over to the next epoch as often as needed.
    """

    def __init__(
        self, feed: "Feed[Batch]", count: Callable[[Batch], int], deadline: float | None
    ) -> None:
        self.feed, self.count, self.deadline = feed, count, deadline
        self.targets = 0
        self.seconds = 0.0

    def __len__(self) -> int:
        """A length keeps training loops from looking one batch ahead."""
        return len(self.feed.loader) if self.deadline is None else ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        start = time.perf_counter()
        while self.deadline is None or time.perf_counter() - start < self.deadline:
            batch = self.feed.next(wrap=self.deadline is not None)
            if batch is None:
                break
            yield batch
            self.targets += self.count(batch)
            self.seconds = time.perf_counter() - start


class Feed(Generic[Batch]):
    """A library's training loader, kept open between commands so that training continues."""

    def __init__(self, loader: Loader, count: Callable[[Batch], int]) -> None:
        self.loader, self.count = loader, count
        self.batches = 0
        self._open: Iterator[Batch] | None = None

    def next(self, wrap: bool) -> Batch | None:
        """Take the next batch; at the end of the epoch start another one, or answer None."""
        if self._open is None:
            self._open = iter(self.loader)
        batch = next(self._open, None)
        if batch is None:
            self._open = iter(self.loader) if wrap else None
            batch = next(self._open, None) if self._open is not None else None
        self.batches += batch is not None
        return batch

    def window(self, seconds: float | None) -> Window[Batch]:
        """A window of that many seconds, or (None) one epoch from its first batch."""
        if seconds is None:
            self._open = None
        return Window(self, self.count, seconds)

    @property
    def epochs(self) -> float:
        """Epochs of batches handed out since the model was built."""
        return self.batches / len(self.loader)


def read_sequences(path: str | Path) -> pd.DataFrame:
    """Read the Parquet file and add each interaction's position and its distance from the end.

    The position replaces the timestamp in what the libraries see: it orders a user's
    interactions as the file does and survives the rounding of RecBole's float32 times.
    """
    frame = pd.read_parquet(path, columns=["user_id", "item_id"]).astype(str)
    by_user = frame.groupby("user_id", sort=False)
    frame["position"] = by_user.cumcount()
    frame["from_end"] = by_user.cumcount(ascending=False)
    return frame


def serve(peer: Peer, more: tuple[str, ...] = ()) -> None:
    """Answer commands until "quit" or the end of input; fd 1 goes to stderr for everyone else.

    ``more`` names the commands that this peer has beyond those of ``Peer``.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        command: Json = {}
        try:
            command = json.loads(line)
            name = command.pop("cmd")
            if name == "quit":
                break
            if name == "load":
                command["config"] = DEFAULTS | command.get("config", {})
            elif name not in ("train", "train_epoch", "evaluate", "score_metrics", *more):
                raise ValueError(f"unknown command: {name}")
            answer = getattr(peer, name)(**command)
        except Exception as error:
            answer = {"error": repr(error), "traceback": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
