"""What goes over the wire. Unknown keys, wrong types and values out of bounds are errors (422)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from foretaste.serving.limits import (
    EVENTS_AT_ONCE,
    ID_BYTES,
    LAST_MILLISECOND,
    MOST_CANDIDATES,
    MOST_EVENTS,
    MOST_ITEMS,
    TOLD_UNKNOWN,
)

SECONDS_BELOW = 1e11
"""A time below this is in seconds, from here on in milliseconds: as logs are read."""


MOST_KEYS = 16
"""Keys of an object, more than any of ours has: each strange one would be an error of its own."""


class Strict(BaseModel):
    """No key that is not named, no number for a text, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, given: object) -> object:
        if isinstance(given, dict) and len(given) > MOST_KEYS:
            known = ", ".join(cls.model_fields)
            raise ValueError(f"has {len(given):,} keys; known are: {known}")
        return given


def _short(text: str) -> str:
    size = len(text.encode())
    if size > ID_BYTES:
        raise ValueError(f"has {size} bytes of UTF-8; {ID_BYTES} are allowed")
    return text


def _whole(number: object) -> object:
    """JSON knows one kind of number: 10.0 is a whole one."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


UserId = Annotated[str, StringConstraints(max_length=ID_BYTES), AfterValidator(_short)]
ItemId = Annotated[
    str, StringConstraints(min_length=1, max_length=ID_BYTES), AfterValidator(_short)
]
RunName = Annotated[str, StringConstraints(max_length=ID_BYTES)]
Moment = Annotated[float, Field(ge=0, le=LAST_MILLISECOND)]


def _milliseconds(moment: float) -> int:
    return round(moment * (1_000 if moment < SECONDS_BELOW else 1))


class NewEvent(Strict):
    """A user chose an item."""

    user_id: UserId
    item_id: ItemId
    timestamp: Annotated[
        Moment | None,
        Field(
            description="Seconds or milliseconds since 1970, told by their size. Now by default."
        ),
    ] = None

    def milliseconds(self, now: int) -> int:
        """When, in milliseconds since 1970."""
        return now if self.timestamp is None else _milliseconds(self.timestamp)


def _one_or_several(given: object) -> str:
    """Which of two forms is meant, so that what is wrong with the other one is not told."""
    return "events" if isinstance(given, list) else "event"


NewEvents = Annotated[
    Annotated[NewEvent, Tag("event")]
    | Annotated[
        list[NewEvent],
        Field(min_length=1, max_length=EVENTS_AT_ONCE, fail_fast=True),
        Tag("events"),
    ],
    Discriminator(_one_or_several),
]


class Logged(Strict):
    """The events are in the log.

    In LMDB they survive the death of the service and a power cut, in Redis what its own
    `appendfsync` promises; with `--store memory` they are gone when the service ends.
    """

    accepted: int = Field(description="Events logged.")
    unknown: list[str] = Field(description="Item ids that no loaded run knows; logged as well.")
    ms: float = Field(description="Milliseconds in the server.")


class PastEvent(Strict):
    """Somebody chose an item."""

    item_id: ItemId
    timestamp: Annotated[
        Moment, Field(description="Seconds or milliseconds since 1970, told by their size.")
    ]


def _ids_or_events(given: object) -> str:
    """As ``_one_or_several``."""
    first = given[0] if isinstance(given, list) and given else None
    return "events" if isinstance(first, dict | PastEvent) else "ids"


Ids = Annotated[list[ItemId], Field(max_length=MOST_EVENTS, fail_fast=True), Tag("ids")]
PastEvents = Annotated[
    list[PastEvent],
    Field(min_length=1, max_length=MOST_EVENTS, fail_fast=True),
    Tag("events"),
]  # none at all are ids, so that every history is of one form


class Ask(Strict):
    """Who asks, and for what. Without user and history the list holds what is popular."""

    user_id: Annotated[
        UserId | None, Field(description="The history is what the log holds of this user.")
    ] = None
    history: Annotated[
        Annotated[Ids | PastEvents, Discriminator(_ids_or_events)] | None,
        Field(
            description="Item ids, or events with their times, oldest first. With user_id: used "
            "when the log holds nothing of the user or cannot be read.",
        ),
    ] = None
    k: Annotated[
        int,
        Field(ge=1, le=MOST_ITEMS, description="Length of the list."),
        BeforeValidator(_whole),
    ] = 10
    exclude_seen: Annotated[bool, Field(description="Leave out items of the history.")] = True
    candidates: Annotated[
        Annotated[list[ItemId], Field(fail_fast=True)] | None,
        Field(
            min_length=1,
            max_length=MOST_CANDIDATES,
            description="Item ids that may be in the list; all by default.",
        ),
    ] = None
    explain: Annotated[bool, Field(description="Say which events the list leans on.")] = False
    run: Annotated[RunName | None, Field(description="A name of /v1/runs.")] = None

    def past(self) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
        """The item ids of the history, and their times in milliseconds where they are told."""
        ids, times = [], []
        for one in self.history or []:
            if isinstance(one, PastEvent):
                ids.append(one.item_id)
                times.append(_milliseconds(one.timestamp))
            else:
                ids.append(one)
        return tuple(ids), tuple(times) or None


class ListedItem(Strict):
    """One line of a list."""

    item_id: str
    title: str
    score: float = Field(description="Comparable within a list only.")


class Because(Strict):
    """What an event of the history does for the list."""

    item_id: str
    title: str
    fall: float | None = Field(
        description="How much the mean score of the listed items falls when the event is left "
        "out. null when no event would remain."
    )


class Answered(Strict):
    """A list, and what it was made from."""

    items: list[ListedItem] = Field(description="Best first.")
    unknown: list[str] = Field(
        description="Ids of the history and of the candidates that the run does not know; of the "
        f"log {TOLD_UNKNOWN} at most."
    )
    source: Literal["state", "history", "fallback"] = Field(
        description="state: from what was kept of the user, and new events; history: computed "
        "from the whole history; fallback: popular items, as nothing was known."
    )
    degraded: bool = Field(description="The store did not answer: the log was not read.")
    run: str
    fingerprint: str = Field(
        description="Of the model that made the list, as in /v1/runs: another one when a newer "
        "run has taken its place."
    )
    ms: float = Field(description="Milliseconds in the server.")
    logged: int = Field(description="Events that the log holds of the user.")
    state_bytes: int = Field(
        description="Bytes that were read of what the store keeps of the user for this run, "
        "besides the log. A store may hold up to twice as many; what this answer adds is written "
        "after it."
    )
    because: list[Because] | None = Field(
        default=None, description="With explain: the last events, the weightiest first."
    )


class Forgotten(Strict):
    """No call finds anything of the user any more.

    Bytes may last on the disk: in free pages of LMDB until the service stops or starts, in Redis's
    append-only file until that is rewritten.
    """

    forgotten: bool = Field(description="Whether there was anything.")


class FoundItem(Strict):
    """An item whose title is like what was typed."""

    item_id: str
    title: str
    score: float = Field(description="0 (unlike) to 100 (equal).")


class Found(Strict):
    """Items by title, the most alike first."""

    items: list[FoundItem]


class RunInfo(Strict):
    """A loaded run."""

    name: str
    model: str
    items: int = Field(description="Size of the catalog.")
    default: bool = Field(description="Answers requests that name no run.")
    incremental: bool = Field(description="Keeps a state of every user.")
    record_bytes: int = Field(description="Bytes kept of an event; 0 without states.")
    window: int = Field(description="Events of which records are kept; 0 without states.")
    recall: float = Field(description="Share of exact lists that the index finds; 1: exact.")
    fingerprint: str = Field(description="Of name, configuration, catalog and weights.")
    loaded: str = Field(description="When, in ISO 8601.")


class Runs(Strict):
    """Loaded runs, the default one first."""

    runs: list[RunInfo]


class Health(Strict):
    """How the process does."""

    status: Literal["ok", "unready"]
    reasons: list[str] = Field(default=[], description="What is missing.")


class Problem(Strict):
    """Why a request was not answered."""

    detail: str


class WrongField(Strict):
    """One thing that is wrong with a request."""

    loc: list[str | int] = Field(description="Where.")
    msg: str = Field(description="What.")
    type: str


class WrongFields(Strict):
    """All that is wrong with a request."""

    detail: list[WrongField]
