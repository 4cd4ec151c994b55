"""From a configuration to views: which maker, what is kept already, the rest in batches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from foretaste.data.catalog import Catalog
from foretaste.language.views.binding import require_titles
from foretaste.language.views.chat import ChatConfig, ChatModel, ChatViews
from foretaste.language.views.chat_endpoint import ChatEndpoint, ChatEndpointConfig
from foretaste.language.views.drawn import (
    AugmentConfig,
    AugmentedViews,
    RandomConfig,
    RandomViews,
)
from foretaste.language.views.judged import JudgedConfig, JudgedViews
from foretaste.language.views.local_model import LocalModel, LocalModelConfig, require_model
from foretaste.language.views.neighbours import (
    ReceivedConfig,
    ReceivedViews,
    TitlesConfig,
    TitleViews,
    texts_of,
)
from foretaste.language.views.store import ViewStore, key_of, print_of, read_table
from foretaste.language.views.table import TableConfig, TableViews
from foretaste.language.views.views import Request, Unfinished, ViewMaker, Views
from foretaste.progress import Progress, Silent

logger = logging.getLogger(__name__)

ViewsConfig = Annotated[
    TitlesConfig
    | ChatConfig
    | JudgedConfig
    | ReceivedConfig
    | RandomConfig
    | AugmentConfig
    | TableConfig,
    Field(discriminator="kind"),
]
"""How views are made; ``kind`` tells which: ``titles`` (nearest by embedding), ``chat`` (a
language model writes), ``judged`` (a language model keeps or rejects), ``received`` (vectors of
the common model), ``random``, ``augment`` (crop, mask, reorder), or ``table`` (made before)."""


def maker_for(
    config: ViewsConfig,
    catalog: Catalog,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> ViewMaker:
    """The maker that a configuration asks for; models are loaded here.

    Args:
        config: which, with its settings.
        catalog: the items.
        folder: where vectors of texts may be kept.
        progress: who is told.

    Raises:
        MissingExtraError: when a package is missing.
        InputError: when the catalog has no titles, or a model cannot be had.
    """
    if isinstance(config, RandomConfig):
        return RandomViews(config, len(catalog))
    if isinstance(config, AugmentConfig):
        return AugmentedViews(config, len(catalog))
    if isinstance(config, ReceivedConfig):
        return ReceivedViews(config)
    if isinstance(config, TableConfig):
        return TableViews(config, catalog)
    cache = None if folder is None else str(folder / "texts.sqlite")
    if isinstance(config, TitlesConfig):
        return TitleViews(config, catalog, cache=cache, progress=progress)
    if isinstance(config, JudgedConfig):
        model = LocalModel(config.model)
        return JudgedViews(config, model, catalog, cache=cache, progress=progress)
    chat: ChatModel = (
        ChatEndpoint(config.model)
        if isinstance(config.model, ChatEndpointConfig)
        else LocalModel(config.model)
    )
    return ChatViews(config, chat, catalog)


def require_maker(config: ViewsConfig, catalog: Catalog, *, here: bool) -> None:
    """Raises as ``maker_for`` when something is missing, before anybody waits; loads no model.

    Args:
        config: which maker.
        catalog: the items.
        here: whether views are made on this machine, so that packages and files must be here too.
    """
    if isinstance(config, TitlesConfig):
        texts_of(catalog)
    elif isinstance(config, ChatConfig | JudgedConfig):
        require_titles(catalog)
        if here and isinstance(config.model, LocalModelConfig):
            require_model(config.model)
    elif isinstance(config, TableConfig) and here:
        read_table(config.path, catalog)


_MADE = (
    "views of %(made)d histories were made; of %(asked)d titles %(unmatched)d were dropped, as the "
    "catalog does not have them, and %(refused)d histories had a prompt refused."
)


class ViewBook:
    """A maker with what it made before: a history is asked for once, and after a stop the rest."""

    def __init__(self, maker: ViewMaker, catalog: Catalog, store: ViewStore | None = None) -> None:
        """``store`` None keeps views in memory."""
        self.maker, self.store = maker, store or ViewStore()
        self._made_by, self._items = (print_of(catalog), maker.identity), len(catalog)

    def views(self, request: Request, progress: Progress | None = None) -> Views:
        """Views of every history, kept when the maker's views last.

        Kept views are made from a seed of the history's own, so that they do not depend on when
        they were first asked for. Those of which a prompt was refused are not kept.

        Raises:
            Unfinished: when a language model stops answering; with all views that are known,
                which are kept.
            InputError: as of the maker.
        """
        if not self.maker.lasting:
            return self.maker.make(request, progress)
        keys = [key_of(history, *self._made_by) for history in request.histories]
        known = self.store.get(sorted(set(keys)), self._items)
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in known:
                first.setdefault(key, row)
        missing = list(first)
        # One batch is a bar that is full at once: nodes of few users would show one every round.
        told = progress if progress and len(missing) > self.maker.batch else Silent()
        with told.task("views", len(missing)) as task:
            for begin in range(0, len(missing), self.maker.batch):
                some = missing[begin : begin + self.maker.batch]
                rows = np.array([first[key] for key in some], np.int64)
                seeds = np.array([int.from_bytes(key[:8], "little") for key in some], np.uint64)
                asked = Request(request.histories.take(rows), seeds, request.vectors)
                try:
                    made = self.maker.make(asked)  # one bar at a time
                except Unfinished as error:
                    self._keep({some[row]: one for row, one in error.made.items()}, known)
                    rest = {row: known[key] for row, key in enumerate(keys) if key in known}
                    raise Unfinished(str(error), rest) from error
                self._keep(dict(zip(some, _single(made), strict=True)), known)
                counts = {"asked": made.asked, "unmatched": made.unmatched}
                counts |= {"made": len(some), "refused": len(made.refused)}
                logger.info(_MADE, counts)
                note = f"{made.asked - made.unmatched} of {made.asked} titles" if made.asked else ""
                refused = f", {len(made.refused)} refused" if made.refused else ""
                task.advance(len(some), note + refused)
        each = [known[key] for key in dict.fromkeys(keys)]
        return Views(
            [known[key].rows[0] for key in keys],
            sum(one.asked for one in each),
            sum(one.unmatched for one in each),
            tuple(row for row, key in enumerate(keys) if known[key].refused),
        )

    def _keep(self, made: dict[bytes, Views], known: dict[bytes, Views]) -> None:
        """Remember views of one history each for this call, and for good if nothing is missing."""
        known |= made
        self.store.put({key: one for key, one in made.items() if not one.refused})


def _single(made: Views) -> list[Views]:
    """One by one. What was asked for together is counted with the first that is kept."""
    refused = set(made.refused)
    found = [Views([row], refused=(0,) * (at in refused)) for at, row in enumerate(made.rows)]
    if found:
        first = next((at for at, one in enumerate(found) if not one.refused), 0)
        found[first] = found[first]._replace(asked=made.asked, unmatched=made.unmatched)
    return found
