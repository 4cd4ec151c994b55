"""From a configuration to views: which maker, what is kept already, the rest in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from foretaste.data.catalog import Catalog
from foretaste.language.views.chat import ChatConfig, ChatModel, ChatViews
from foretaste.language.views.chat_endpoint import ChatEndpoint, ChatEndpointConfig
from foretaste.language.views.drawn import (
    AugmentConfig,
    AugmentedViews,
    RandomConfig,
    RandomViews,
)
from foretaste.language.views.judged import JudgedConfig, JudgedViews
from foretaste.language.views.local_model import LocalModel
from foretaste.language.views.neighbours import (
    ReceivedConfig,
    ReceivedViews,
    TitlesConfig,
    TitleViews,
)
from foretaste.language.views.store import ViewStore, key_of, print_of
from foretaste.language.views.table import TableConfig, TableViews
from foretaste.language.views.views import Request, ViewMaker, Views
from foretaste.progress import Progress, Silent

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


class ViewBook:
    """A maker with what it made before: a history is asked for once, and after a stop the rest."""

    def __init__(self, maker: ViewMaker, catalog: Catalog, store: ViewStore | None = None) -> None:
        """``store`` None keeps views in memory."""
        self.maker, self.store = maker, store or ViewStore()
        self._made_by, self._items = (print_of(catalog), maker.identity), len(catalog)

    def views(self, request: Request, progress: Progress | None = None) -> Views:
        """Views of every history, kept when the maker's views last.

        Kept views are made from a seed of the history's own, so that they do not depend on when
        they were first asked for.
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
        told = progress if missing and progress else Silent()
        with told.task("views", len(missing)) as task:
            for begin in range(0, len(missing), self.maker.batch):
                some = missing[begin : begin + self.maker.batch]
                rows = np.array([first[key] for key in some], np.int64)
                seeds = np.array([int.from_bytes(key[:8], "little") for key in some], np.uint64)
                asked = Request(request.histories.take(rows), seeds, request.vectors)
                made = self.maker.make(asked)  # one bar at a time
                new = {key: Views([row]) for key, row in zip(some, made.rows, strict=True)}
                if some:  # what was asked for in this batch is counted with its first history
                    new[some[0]] = Views(new[some[0]].rows, made.asked, made.unmatched)
                self.store.put(new)
                known |= new
                task.advance(len(some), f"{made.asked - made.unmatched} of {made.asked} titles")
        rows_of = [known[key].rows[0] for key in keys]
        each = [known[key] for key in dict.fromkeys(keys)]
        return Views(rows_of, sum(one.asked for one in each), sum(one.unmatched for one in each))
