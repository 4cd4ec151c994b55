"""From titles that a language model wrote to items of the catalog."""

from __future__ import annotations

from foretaste.data.catalog import Catalog
from foretaste.data.titles import YEAR, TitleIndex
from foretaste.errors import InputError

REMEMBERED = 100_000
"""Titles whose match is remembered: a small model writes the same ones again and again."""


def require_titles(catalog: Catalog) -> None:
    """Raises ``InputError`` when no item has a title."""
    if not catalog.has_titles:
        raise InputError(
            "a language model knows items by their titles, and this catalog has none. Give "
            'them (--items FILE), or set views.kind = "received".'
        )


class Binder:
    """Finds items by titles; what is no title of the catalog is no item.

    An id is never taken for a title: the model cannot know ids, so a number in its answer is not
    one, even where ids are numbers.
    """

    def __init__(self, catalog: Catalog, minimum: float) -> None:
        """``minimum`` 0 to 100: how alike a title must be; see ``TitleIndex``.

        Raises:
            InputError: when no item has a title.
        """
        require_titles(catalog)
        self.index, self.minimum = TitleIndex(catalog), minimum
        self._ids = set(catalog.item_ids)
        self._titles = {_folded(title): number for number, title in enumerate(catalog.titles)}
        self._known: dict[str, int | None] = {}

    def item(self, typed: str) -> int | None:
        """The item of this title, or None."""
        folded = _folded(typed)
        if not any(letter.isalnum() for letter in folded):
            return None
        if folded in self._titles:
            return self._titles[folded]
        if typed.strip() in self._ids:
            return None
        if folded not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self.index.find(typed, limit=1, minimum=self.minimum)
            self._known[folded] = found[0].item if found else None
        return self._known[folded]


def _folded(title: str) -> str:
    return " ".join(YEAR.sub("", title).casefold().split())
