"""Finding items by the titles people type."""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from foretaste.data.catalog import Catalog
from foretaste.data.folding import folded, folded_series, plain
from foretaste.data.sequences import offsets_of

YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
LIKE = 75.0
"""Two words less alike than this (0 to 100) are different words, not one mistyped."""


class TitleMatch(NamedTuple):
    """What a typed title was taken for; ``score`` is 0 (unlike) to 100 (equal)."""

    typed: str
    item: int
    title: str
    score: float


class TitleIndex:
    """Typo-tolerant look-up of titles; ids of items are accepted too.

    Titles are compared word by word, in any order: what counts is how much of what was typed a
    title holds, and a little how much of the title was typed. A rare word weighs more than a
    common one. A year after the title must be right when typed and does not matter when not.
    """

    def __init__(self, catalog: Catalog, popularity: np.ndarray | None = None) -> None:
        """Index the titles of ``catalog``; of equal matches the more popular item wins."""
        self.catalog = catalog
        self.popularity = np.zeros(len(catalog)) if popularity is None else popularity
        words = _split(catalog.titles)
        self._offsets = offsets_of(np.bincount(words["item"], minlength=len(catalog)))
        known = words["word"].unique().sort()
        self._known = known.to_list()
        self._flat = words["word"].cast(pl.Enum(known)).to_physical().to_numpy().astype(np.int64)
        # How much a word tells: 0.7 when every title holds it, more the fewer do.
        self._weights = np.log(1 + len(catalog) / np.bincount(self._flat))
        self._title_weights = self._weights[self._flat]
        dated = pl.Series(catalog.titles, dtype=pl.String).str.contains(YEAR.pattern).to_numpy()
        self._title_weights[self._offsets[1:][dated] - 1] = 0
        self._joined = _joined(words, dated, catalog.titles)

    def find(
        self, typed: str, *, limit: int = 5, minimum: float = 75.0, most_words: int | None = None
    ) -> list[TitleMatch]:
        """The items whose titles are most like ``typed``, best first; none below ``minimum``.

        Each word is compared with all words of all titles; ``most_words`` bounds that.
        """
        scores = self._scores(list(dict.fromkeys(_words(typed)))[:most_words])
        number = int(self.catalog.numbers([typed.strip()])[0])
        # "300" is a title before it is an id.
        if number >= 0 and (scores.max() < 100 or not self.catalog.has_titles):
            return [TitleMatch(typed, number, self.catalog.titles[number], 100.0)]
        best = np.lexsort((-self.popularity, -scores))[:limit]
        return [
            TitleMatch(typed, int(item), self.catalog.titles[item], float(scores[item]))
            for item in best
            if scores[item] >= max(minimum, 1)
        ]

    def match(self, typed: list[str]) -> tuple[list[TitleMatch], list[str]]:
        """The best match of every typed title, and those that match nothing; blank ones are none.

        A title that is typed twice is found twice, as a history may hold an item twice.
        """
        typed = [title for title in typed if title.strip()]
        found = {title: self.find(title, limit=1) for title in dict.fromkeys(typed)}
        matched = [found[title][0] for title in typed if found[title]]
        return matched, [title for title in typed if not found[title]]

    def holds(self, text: str) -> bool:
        """Whether a text is a title as a whole, but for case, blanks and year; or an id."""
        return _whole(text) in self._wholes or int(self.catalog.numbers([text.strip()])[0]) >= 0

    @cached_property
    def _wholes(self) -> set[str]:
        return {_whole(title) for title in self.catalog.titles}

    def _scores(self, query: list[str]) -> np.ndarray:
        """How well every title answers ``query``, in whole points, float ``[items]``."""
        from rapidfuzz import fuzz, process

        if not query or not len(self.catalog):
            return np.zeros(len(self.catalog))
        like = process.cdist(query, self._known, scorer=fuzz.ratio, score_cutoff=LIKE) / 100
        like *= like  # squared, as one slip in a short word makes another word: "heat", "heart"
        for row, word in enumerate(query):
            if word.isdigit():  # 1998 is not nearly 1999
                like[row] = [word == other for other in self._known]
        nearest = like.argmax(axis=1)
        unknown = np.log(1 + len(self.catalog))
        weights = np.where(like.max(axis=1) > 0, self._weights[nearest], unknown)
        events = like[:, self._flat]  # [query words, words of all titles]
        starts = self._offsets[:-1]
        typed = weights @ np.maximum.reduceat(events, starts, axis=1) / weights.sum()
        held = np.add.reduceat(events.max(axis=0) * self._title_weights, starts)
        held /= np.maximum(np.add.reduceat(self._title_weights, starts), 1e-9)
        by_words = typed * (0.9 + 0.1 * held)
        # "spiderman" for "Spider-Man"; worth less, as "godfather 2" is also nearly "Godfather".
        joined = process.cdist(["".join(query)], self._joined, scorer=fuzz.ratio)[0] / 100
        return np.round(100 * np.maximum(by_words, 0.9 * joined))


def _whole(title: str) -> str:
    return " ".join(YEAR.sub("", title).casefold().split())


def _words(title: str) -> list[str]:
    """Lower case, no accents, no punctuation, roman numbers as digits: "Amélie II" -> amelie, 2."""
    return [ROMAN.get(word, word) for word in folded(title).split() or plain(title).split()]


def _split(titles: list[str]) -> pl.DataFrame:
    """``item`` and ``word``: the ``_words`` of every title in order, an empty one where none is.

    By whole columns: a catalog of half a million titles takes seconds, not half a minute.
    """
    split = pl.DataFrame({"item": np.arange(len(titles)), "word": folded_series(titles)})
    words = split.with_columns(pl.col("word").str.split(" ")).explode("word")
    words = words.filter(pl.col("word") != "").with_columns(pl.col("word").replace(ROMAN))
    without = np.flatnonzero(np.bincount(words["item"], minlength=len(titles)) == 0)
    if not len(without):
        return words
    bare = [(item, word) for item in without for word in _words(titles[item]) or [""]]
    more = pl.DataFrame(bare, words.schema, orient="row")
    return pl.concat([words, more]).sort("item", maintain_order=True)


def _joined(words: pl.DataFrame, dated: np.ndarray, titles: list[str]) -> list[str]:
    """The words of every title as one, but for the year at its end."""
    grouped = words.group_by("item", maintain_order=True).agg("word", pl.len().alias("named"))
    named = grouped["named"].to_numpy() - dated
    heads = grouped.with_columns(named=named).select(pl.col("word").list.head(pl.col("named")))
    joined = heads["word"].list.join("").to_list()
    for item in np.flatnonzero(dated & (named == 0)):  # "!!! (2010)": see ``_words``
        joined[item] = "".join(_words(YEAR.sub("", titles[item])))
    return joined
