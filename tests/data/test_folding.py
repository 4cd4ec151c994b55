"""Titles are folded letter by letter, and split by whole columns, to what the plain way gives."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from foretaste.data.catalog import Catalog
from foretaste.data.folding import folded, folded_series
from foretaste.data.titles import ROMAN, YEAR, TitleIndex


def plainly(text: str) -> list[str]:
    """The words of a text, as a sentence says it."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(one for one in apart if not unicodedata.combining(one)))


def of_title(title: str) -> list[str]:
    apart = unicodedata.normalize("NFKD", title.casefold())
    bare = "".join(one for one in apart if not unicodedata.combining(one))
    return [ROMAN.get(word, word) for word in plainly(title) or bare.split()]


@given(st.text())
@example("Amélie ǰ ẞ İ ½ ﬁ")
@example("हिन्दी 한국어 a\u0323\u0307 ΑΣ Ⅳ x² a_b")
def test_letters_one_by_one_are_the_text_as_a_whole(text):
    assert folded(text).split() == plainly(text)
    assert folded_series([text, "b"]).to_list() == [folded(text), "b"]


names = st.text(alphabet="aé!I (19)0٣_\n-", max_size=12)
years = st.sampled_from(["", " (1999)", "(2001) ", " (٢٠٠١)", "(199)"])


@given(st.lists(st.builds(lambda name, year: name + year, names, years), min_size=1, max_size=6))
@example(["!!! (2010)", "!!!", "(1990)", "Part II (1974)", "ii", " ", "x(1990)\n"])
def test_an_index_by_columns_is_that_of_a_loop(titles):
    ids = pl.Series([f"i{number}" for number in range(len(titles))])
    index = TitleIndex(Catalog.from_items(ids, pl.DataFrame({"item_id": ids, "title": titles})))
    words = [of_title(title) or [""] for title in titles]
    flat = [word for title in words for word in title]
    assert index._known == sorted(set(flat))
    assert [index._known[number] for number in index._flat] == flat
    assert np.diff(index._offsets).tolist() == [len(title) for title in words]
    lasts = [index._title_weights[end - 1] == 0 for end in index._offsets[1:]]
    assert lasts == [YEAR.search(title) is not None for title in titles]
    assert index._joined == ["".join(of_title(YEAR.sub("", title))) for title in titles]
