"""Amazon 2018 Office and Industrial as a log: one row an event, rebuilt from published histories.

    .venv/bin/python benchmarks/amazon18.py FOLDER OUTPUT [--protocol]

``FOLDER`` is ``amazon18-office`` (TCA4Rec's files) or ``amazon18-industrial`` (MiniOneRec's).
``OUTPUT`` gets ``interactions.parquet`` (user_id, item_id, timestamp in ms, timed),
``items.parquet`` (item_id, title and, where known, description) and, with ``--protocol``,
``protocol.parquet``: the published questions (part, user_id, history, item_id).
``published_split`` makes a ``Split`` of them.

What is published are questions, not a log: at most ten items of a user and the one that came
next. The questions of one user are windows on one sequence, so they are laid over one another
with the smallest shift at which they agree, and every event counts once. Where two windows share
nothing, the events between them are not known. Events from more than ten places before a user's
first question are lost, and users without a question are not in the log.

Office: 20,000 questions drawn from a longer log, in three windows of time. The event asked for
has its published time. Those that are only in a history have none: they lie evenly between the
known ones around them, and before the first known one at the set's usual gap. ``timed`` says
which times are published. They are good for the order within a user, which is exact. A global cut
on them is an estimate: of a user who is first asked after a cut, history lands on either side.

Industrial: every question of validation and test, in the order of time, but no times and no train
file. Each event after a user's first is the answer of some question, so one that is no answer of
validation or test came before both: it is train. A user's first event alone can be later; it is
taken as late as it can be, just before the next one. Times are made: questions stand at equal
steps over the last fifth of the period that the files name (a tenth for each part, as published),
train events at equal steps of their user before it. Order within users and among questions is
exact.

The train part of ``published_split`` holds what is proven to lie before the first question of
validation: for Office the windows of the train questions, for Industrial what is said above,
without first events that nothing dates. So no answer of validation or test is ever in train, nor
any event of their time. A question's history is as published, its length included.
"""

import argparse
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.dataset import Dataset
from foretaste.data.reading import read_interactions
from foretaste.data.sequences import Sequences
from foretaste.data.split import Queries, Split
from foretaste.errors import InputError

PARTS = ("train", "valid", "test")
OFFICE = {"train": "train_10000.csv", "valid": "valid_5000.csv", "test": "test_5000.csv"}
INDUSTRIAL = "Industrial_and_Scientific"
PERIOD = (datetime(2016, 10, 1, tzinfo=UTC), datetime(2018, 11, 1, tzinfo=UTC))
"""Of the Industrial files, by their names."""


class Question(NamedTuple):
    """A published row: what did this user, after this history, choose next?"""

    part: str
    user: str
    history: tuple[int, ...]
    item: int
    time: int  # ms


class Event(NamedTuple):
    """One event of a user's sequence.

    Attributes:
        item: the published number.
        time: in ms; None where it is not published.
        part: of the question that asks for it; None where none does.
    """

    item: int
    time: int | None
    part: str | None


class Source(NamedTuple):
    """The files of one set.

    Attributes:
        questions: of all parts, in the order of time.
        items: item_id, title, description where known.
        whole: whether all questions of validation and test are there.
    """

    questions: list[Question]
    items: pl.DataFrame
    whole: bool


def read_source(folder: Path) -> Source:
    """Read either set.

    Raises:
        InputError: when the folder holds neither, or a row makes no sense.
    """
    if (folder / "item.csv").is_file():
        return _office(folder)
    if (folder / "index" / f"{INDUSTRIAL}.item.json").is_file():
        return _industrial(folder)
    raise InputError(f"{folder}: neither amazon18-office nor amazon18-industrial.")


def _office(folder: Path) -> Source:
    questions = []
    for part, name in OFFICE.items():
        frame = pl.read_csv(folder / name).unique(maintain_order=True)
        for user, item, history, time in frame.select(
            "uid", "iid", "hist_id", "timestamp"
        ).iter_rows():
            questions.append(Question(part, str(user), _items(history, name), item, time * 1000))
    items = pl.read_csv(folder / "item.csv")
    items = items.select(pl.col("iid").cast(pl.String).alias("item_id"), "title")
    return Source(sorted(questions, key=lambda question: question.time), items, False)


def _industrial(folder: Path) -> Source:
    begin, end = (round(moment.timestamp() * 1000) for moment in PERIOD)
    questions = []
    for part, share in (("valid", 0.8), ("test", 0.9)):
        (path,) = (folder / part).glob(f"{INDUSTRIAL}*.csv")
        frame = pl.read_csv(path).select("user_id", "item_id", "history_item_id")
        times = begin + (end - begin) * (share + 0.1 * np.arange(len(frame)) / len(frame))
        for (user, item, history), time in zip(frame.iter_rows(), times, strict=True):
            questions.append(Question(part, user, _items(history, path.name), item, int(time)))
    told = json.loads((folder / "index" / f"{INDUSTRIAL}.item.json").read_text())
    rows = [(number, one["title"], _text(one["description"])) for number, one in told.items()]
    items = pl.DataFrame(rows, schema=["item_id", "title", "description"], orient="row")
    return Source(questions, items, True)


def _items(text: str, place: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f'{place}: "{text[:60]}" is not a list of item numbers.') from error


def _text(text: str) -> str | None:
    """A description: the files hold lists of paragraphs, written out with quotes of any kind."""
    inside = re.sub(r"""^\[['"]?|['"]?\]$""", "", text.strip())
    return " ".join(re.split(r"""['"], ['"]|\s+""", inside)).strip() or None


def merged(questions: Iterable[Question]) -> list[Event]:
    """One user's sequence from questions in the order of time.

    Of questions with one time, the one that goes on from what is known with the smallest shift
    comes first; of equal ones, the one that goes on least from the others.
    """
    events: list[Event] = []
    waiting = list(questions)
    while waiting:
        tied = [other for other in waiting if other.time == waiting[0].time]
        known = [event.item for event in events]
        shifts = [_shift(known, question) for question in tied]
        after = [sum(_shift(_own(other), question) for other in tied) for question in tied]
        place = min(range(len(tied)), key=lambda number: (shifts[number], -after[number]))
        question, shift = tied[place], shifts[place]
        waiting.remove(question)
        events += [Event(item, None, None) for item in _own(question)[-shift:-1]]
        events.append(Event(question.item, question.time, question.part))
    return events


def _own(question: Question) -> list[int]:
    return [*question.history, question.item]


def _shift(known: list[int], question: Question) -> int:
    """How many events a question adds to those known; all of its own where nothing agrees."""
    own = _own(question)
    for shift in range(1, len(own)):
        seen = own[:-shift]
        # A sequence that is shorter than the window begins inside it only by chance.
        if len(known) >= len(seen) and known[-len(seen) :] == seen:
            return shift
    return len(own)


def sequences_of(source: Source) -> dict[str, list[Event]]:
    """Every user's events, in order; users in the order of their ids."""
    rows: dict[str, list[Question]] = defaultdict(list)
    for question in source.questions:
        rows[question.user].append(question)
    return {user: merged(rows[user]) for user in sorted(rows)}


def dated(events: Sequence[Event], gap: int, first: int | None) -> np.ndarray:
    """Times int64 ``[events]`` in ms, ascending: published ones, and estimates for the others.

    Args:
        events: of one user; the last one has a time.
        gap: from one event to the next, before the first published time.
        first: of an ordinal clock: where it begins; events without a time are spread from there. A
            single one is put just before the next, since nothing else dates it.
    """
    known = [place for place, event in enumerate(events) if event.time is not None]
    stamps = np.array([events[place].time for place in known], np.float64)
    before = known[0]
    times = np.interp(np.arange(len(events)), known, stamps)
    if first is None:
        times[:before] = stamps[0] - gap * np.arange(before, 0, -1)
    elif before == 1:
        times[0] = stamps[0] - 1
    else:
        times[:before] = first + (np.arange(before) + 0.5) / before * gap
    order = np.arange(len(events))
    # Events of one day follow each other by a millisecond, so that their order is not lost.
    return np.maximum.accumulate(times.astype(np.int64) - order) + order


def rebuild(source: Source) -> pl.DataFrame:
    """The log: user_id, item_id, timestamp (ms), timed (is the time, or place, published)."""
    users = sequences_of(source)
    if source.whole:
        first = round(PERIOD[0].timestamp() * 1000)
        gap = source.questions[0].time - first  # the length of the train period
    else:
        first, gap = None, _usual_gap(users.values())
    frames = [
        pl.DataFrame(
            {
                "user_id": [user] * len(events),
                "item_id": [str(event.item) for event in events],
                "timestamp": dated(events, gap, first),
                "timed": [event.time is not None for event in events],
            }
        )
        for user, events in users.items()
    ]
    return pl.concat(frames).sort("timestamp", maintain_order=True)


def _usual_gap(users: Iterable[list[Event]]) -> int:
    """The median time from one event to the next, where both are published."""
    gaps = [
        after.time - before.time
        for events in users
        for before, after in itertools.pairwise(events)
        if before.time is not None and after.time is not None
    ]
    return int(np.median(gaps)) if gaps else 0


def train_length(events: Sequence[Event], whole: bool) -> int:
    """How many of a user's first events are proven to lie before validation; see above."""
    asked = [place for place, event in enumerate(events) if event.part is not None]
    if not whole:
        return max((place + 1 for place in asked if events[place].part == "train"), default=0)
    return asked[0] if asked[0] > 1 else 0


def published_split(folder: Path) -> Split:
    """The published questions as a ``Split``: several questions a user, each with one answer.

    The vocabulary is the items of train; answers outside it are misses of every model. Published
    answers may be in their own history: rank with ``exclude="none"``.
    """
    source = read_source(folder)
    users = sequences_of(source)
    numbers = {user: number for number, user in enumerate(users)}
    train = Sequences.from_lists(
        [event.item for event in events[: train_length(events, source.whole)]]
        for events in users.values()
    )
    catalog = Catalog.from_items(
        source.items["item_id"], source.items.rename({"description": "text"}, strict=False)
    )
    rows = catalog.numbers([str(item) for item in np.unique(train.items)])
    published = np.full(int(source.items["item_id"].cast(pl.Int64).max()) + 1, -1, np.int32)  # type: ignore[arg-type]
    published[np.unique(train.items)] = np.arange(len(rows))

    def asked(part: str) -> Queries:
        chosen = [question for question in source.questions if question.part == part]
        histories = Sequences.from_lists([one.history for one in chosen]).renumbered(published)
        return Queries(
            np.array([numbers[one.user] for one in chosen], np.int32),
            histories.where(histories.items >= 0),
            Sequences.from_lists([[one.item] for one in chosen]).renumbered(published),
        )

    data = Dataset.from_interactions(read_interactions(rebuild(source), duplicates="keep"))
    return Split(
        kind="global-time",
        catalog=catalog.take(rows),
        users=pl.Series(list(users)),
        train=train.renumbered(published),
        valid=asked("valid"),
        test=asked("test"),
        cuts=None,
        fingerprint=data.fingerprint,
        notes=("the published questions: one answer each, several for a user.",),
    )


def shares(source: Source, log: pl.DataFrame) -> dict[str, float]:
    """``split.valid_share`` and ``split.test_share`` that cut the log where the parts begin."""
    starts = {
        part: min(one.time for one in source.questions if one.part == part) for part in PARTS[1:]
    }
    later = {
        part: log.filter(pl.col("timestamp") >= start).height for part, start in starts.items()
    }
    return {
        "valid_share": (later["valid"] - later["test"]) / log.height,
        "test_share": later["test"] / log.height,
    }


def main() -> None:
    """Read one set and write its log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--protocol", action="store_true", help="write the questions too")
    args = parser.parse_args()
    source = read_source(args.folder)
    log = rebuild(source)
    args.output.mkdir(parents=True, exist_ok=True)
    log.write_parquet(args.output / "interactions.parquet")
    source.items.write_parquet(args.output / "items.parquet")
    if args.protocol:
        rows = [(one.part, one.user, list(one.history), one.item) for one in source.questions]
        names = ["part", "user_id", "history", "item_id"]
        frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(
            pl.col("history").cast(pl.List(pl.String)), pl.col("item_id").cast(pl.String)
        )
        frame.write_parquet(args.output / "protocol.parquet")
    print(
        f"{log['user_id'].n_unique():,} users, {log['item_id'].n_unique():,} items, "
        f"{log.height:,} events ({log['timed'].mean():.0%} timed); the published cuts: "
        + " ".join(f"--set split.{key}={value!r}" for key, value in shares(source, log).items())
    )


if __name__ == "__main__":
    main()
