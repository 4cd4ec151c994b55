"""Items by what is typed: whole titles with slips of the finger, and titles typed half."""

from __future__ import annotations

import numpy as np

from foretaste.data.catalog import Catalog
from foretaste.data.folding import folded, folded_series
from foretaste.data.titles import TitleIndex, TitleMatch
from foretaste.serving.limits import QUERY_WORDS

BEGUN = 90.0
"""Score of a title in which every typed word begins a word: surer than most mistyped ones."""


class TitleSearch:
    """Looks for titles while they are being typed.

    ``TitleIndex`` compares whole words; here ``incep`` finds Inception as well.
    """

    def __init__(self, catalog: Catalog, popularity: np.ndarray) -> None:
        """Index the titles of ``catalog``; of equal matches the more popular item wins."""
        self._index = TitleIndex(catalog, popularity)
        self._titles, self._popularity = catalog.titles, popularity
        self._words = " " + folded_series(catalog.titles)  # every word after a blank

    def find(self, typed: str, limit: int) -> list[TitleMatch]:
        """At most ``limit`` items, the most alike first."""
        alike = self._index.find(typed, limit=limit, most_words=QUERY_WORDS)
        found = {match.item: match for match in alike}
        words = list(dict.fromkeys(folded(typed).split()))[:QUERY_WORDS]
        for item in self._begun(words, limit):
            if item not in found or found[item].score < BEGUN:
                found[item] = TitleMatch(typed, item, self._titles[item], BEGUN)
        matches = found.values()
        order = sorted(matches, key=lambda one: (-one.score, -self._popularity[one.item], one.item))
        return order[:limit]

    def _begun(self, words: list[str], limit: int) -> list[int]:
        """The most popular items with a word that begins so for each of ``words``."""
        if not words:
            return []
        fits = np.ones(len(self._words), bool)
        for word in words:
            fits &= self._words.str.contains(f" {word}", literal=True).to_numpy()
        items = np.flatnonzero(fits)
        return items[np.argsort(-self._popularity[items], kind="stable")][:limit].tolist()
