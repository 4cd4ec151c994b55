"""The data of the package is what its table says; other sets show the way."""

from __future__ import annotations

import pytest

from foretaste.data.embedded_sets import EMBEDDED_SETS, read_embedded
from foretaste.errors import InputError


def test_the_embedded_sets_are_what_their_table_says(check_contract):
    for embedded in EMBEDDED_SETS:
        log = read_embedded(embedded.name)
        check_contract(log)
        assert log.frame.height == embedded.interactions
        assert log.frame["user_id"].n_unique() == embedded.users
        assert log.frame["item_id"].n_unique() == embedded.items
        assert log.items is not None
        assert log.frame.join(log.items, on="item_id", how="anti").is_empty()
        assert log.source == embedded.name


def test_unknown_and_unembedded_sets_show_the_way():
    with pytest.raises(InputError, match="Did you mean movietweetings"):
        read_embedded("movietweeting")
    with pytest.raises(InputError, match=r"not part of the package .* GroupLens"):
        read_embedded("movielens-1m")
