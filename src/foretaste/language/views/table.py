"""Views that were made before, read from a table: to repeat a run without a language model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from foretaste.data.catalog import Catalog
from foretaste.language.views.store import key_of, print_of, read_table
from foretaste.language.views.views import Request, View, Views, no_view
from foretaste.progress import Progress


class TableConfig(BaseModel):
    """Views of a table that ``write_table`` wrote. A history that is not in it has none.

    Attributes:
        path: of the table.
        shuffled: future and rephrasing are those of another history of the table. A control: if
            these help as much, the help is not in their meaning. (No federation could do it; the
            table holds many users' views.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["table"] = "table"
    path: Path
    shuffled: bool = False


class TableViews:
    """Looks views up."""

    lasting, batch = False, 4_096  # nothing is gained by keeping them once more

    def __init__(self, config: TableConfig, catalog: Catalog) -> None:
        """Read the table.

        Raises:
            InputError: when there is none, or it is of another catalog.
        """
        self.config, self.catalog = config, print_of(catalog)
        self.views = read_table(config.path, catalog)
        if config.shuffled:
            self.views = shuffled(self.views)
        digest = hashlib.blake2b(config.path.read_bytes(), digest_size=12).hexdigest()
        self.identity = f"table {digest} {config.shuffled}"

    def make(self, request: Request, progress: Progress | None = None) -> Views:
        """See ``ViewMaker``."""
        del progress
        none = no_view()
        keys = [key_of(history, self.catalog) for history in request.histories]
        return Views([self.views.get(key, none) for key in keys])


def shuffled(views: dict[bytes, View]) -> dict[bytes, View]:
    """Future and rephrasing of the next history in a random order; a lone one keeps its own."""
    keys = sorted(views)
    order = np.random.default_rng(0).permutation(len(keys))
    found = {}
    for here, there in zip(order, np.roll(order, -1), strict=True):
        other = views[keys[there]]
        found[keys[here]] = other._replace(counterfactual=views[keys[here]].counterfactual)
    return found
