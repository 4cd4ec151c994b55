"""Views that a chat model writes: free answers, bound to the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from foretaste.data.catalog import Catalog
from foretaste.language.views import prompts
from foretaste.language.views.binding import Binder
from foretaste.language.views.chat_endpoint import ChatEndpointConfig, Unanswered
from foretaste.language.views.drawn import swapped_places
from foretaste.language.views.local_model import LocalModelConfig
from foretaste.language.views.views import (
    Request,
    Unfinished,
    View,
    Views,
    exchanged,
    follows,
    generator,
)
from foretaste.progress import Progress, Silent


class ChatModel(Protocol):
    """Something that answers prompts.

    Attributes:
        identity: of the model and how it is asked.
        batch: prompts that are answered together.
    """

    identity: str
    batch: int

    def answers(self, prompts: Sequence[str]) -> Sequence[str | None]:
        """An answer to every prompt, in order; any text at all, None where it is refused.

        Raises:
            Unanswered: when the model stops answering.
        """
        ...


class ChatConfig(BaseModel):
    """Views that a chat model writes.

    Attributes:
        model: in this process, or an endpoint on this device.
        things: what the items are, in the plural, such as ``films``.
        newest: events whose titles the model reads.
        more: titles asked for after the history.
        share: of the history that is exchanged for like titles, one at least.
        exchanges: titles asked for like ones, at most.
        other: titles asked for against the taste.
        minimum: how alike (0 to 100) a title of the answer must be to one of the catalog.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["chat"] = "chat"
    model: LocalModelConfig | ChatEndpointConfig = Field(
        default=LocalModelConfig(), discriminator="kind"
    )
    things: str = Field(default="items", min_length=1, max_length=40)
    newest: int = Field(default=10, ge=1)
    more: int = Field(default=5, ge=1)
    share: float = Field(default=0.25, gt=0, le=1)
    exchanges: int = Field(default=5, ge=1)
    other: int = Field(default=5, ge=1)
    minimum: float = Field(default=80.0, ge=0, le=100)


class _Asked(NamedTuple):
    """One history's three prompts, and the places whose titles the second one holds."""

    prompts: tuple[str, str, str]
    places: np.ndarray


class ChatViews:
    """A chat model asked for titles, three times a history."""

    lasting = True

    def __init__(self, config: ChatConfig, model: ChatModel, catalog: Catalog) -> None:
        """Index the titles.

        Raises:
            InputError: when the catalog has none.
        """
        self.config, self.model, self.catalog = config, model, catalog
        self.binder = Binder(catalog, config.minimum)
        self.batch = max(1, model.batch)
        told = config.model_dump_json(exclude={"model"})
        self.identity = f"chat {model.identity} {told}"

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """See ``ViewMaker``. Titles that match nothing, or the history itself, are dropped.

        Raises:
            Unfinished: when the model stops answering.
        """
        rows = zip(request.histories, request.seeds, strict=True)
        asked = [self._asked(history, generator(seed)) for history, seed in rows]
        lines = [prompt for one in asked for prompt in one.prompts]
        answers: dict[int, str | None] = {}
        failure = None
        with (progress or Silent()).task("asking the language model", len(lines)) as task:
            for first in range(0, len(lines), self.model.batch):
                some = lines[first : first + self.model.batch]
                try:
                    came = dict(enumerate(self.model.answers(some)))
                except Unanswered as error:
                    came, failure = error.answers, error
                answers |= {first + place: answer for place, answer in came.items()}
                if failure is not None:
                    break
                task.advance(len(some))
        found = {}
        for row, (history, one) in enumerate(zip(request.histories, asked, strict=True)):
            three = range(3 * row, 3 * row + 3)
            if all(place in answers for place in three):
                found[row] = self._view(history, one.places, [answers[place] for place in three])
        if failure is not None:
            raise Unfinished(str(failure), found) from failure
        return Views.joined(list(found.values()))

    def _asked(self, history: np.ndarray, rng: np.random.Generator) -> _Asked:
        config, titles = self.config, self.catalog.titles
        newest = [titles[item] for item in history[-config.newest :]]
        places = swapped_places(len(history), config.share, rng)[-config.exchanges :]
        like = [titles[history[place]] for place in places]
        return _Asked(
            (
                prompts.future(newest, config.things, config.more),
                prompts.rephrasing(like, config.things),
                prompts.counterfactual(newest, config.things, config.other),
            ),
            places,
        )

    def _view(
        self, history: np.ndarray, places: np.ndarray, answers: Sequence[str | None]
    ) -> Views:
        future, like, other = (prompts.listed(answer or "") for answer in answers)
        seen = set(history.tolist())
        bound = [
            [(number, self.binder.item(text)) for number, text in lines]
            for lines in (future, like, other)
        ]
        swaps = {
            int(places[number - 1]): item
            for number, item in bound[1]
            if item is not None and item not in seen and number and number <= len(places)
        }
        more, against = (
            list(dict.fromkeys(item for _, item in part if item is not None and item not in seen))
            for part in (bound[0], bound[2])
        )
        view = View(
            follows(history, more[: self.config.more]),
            exchanged(history, swaps),
            np.array(against[: 2 * self.config.other], np.int32),
        )
        lines = [item for part in bound for _, item in part]
        refused = (0,) if None in answers else ()
        return Views([view], len(lines), sum(item is None for item in lines), refused)
