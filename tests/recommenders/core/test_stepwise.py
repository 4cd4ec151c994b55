"""What may follow a prefix, and where a search need not ask."""

from __future__ import annotations

import pytest
import torch

from foretaste.codes.trie import Trie
from foretaste.data.split import Split
from foretaste.recommenders.core.stepwise import Stepwise
from foretaste.recommenders.tiger import TIGER

from ..generators import fitted


def stepwise_of(split: Split, **parameters) -> tuple[Stepwise, TIGER]:
    model = fitted("tiger", split, **parameters)
    assert isinstance(model, TIGER)
    return model.writer.stepwise, model


@pytest.mark.parametrize("architecture", ["encoder-decoder", "decoder-only"])
def test_a_search_of_the_catalog_is_sure_where_one_item_is_left(ordinary: Split, architecture: str):
    stepwise, model = stepwise_of(ordinary, architecture=architecture)
    table, (trie, _) = model.codes.table, model._searched(None)
    sure, seen = stepwise.sure_of(trie), set()
    assert sure is not None
    for row in table:
        state = trie.start(1)
        for level, code in enumerate(row.tolist()):
            alone = int((table[:, :level] == row[:level]).all(1).sum()) == 1
            assert bool(sure[state]) is alone
            seen.add(alone)
            state = trie.step(state, torch.tensor([code]))
    assert seen == {True, False}


def test_no_node_is_sure_where_others_share_in_the_probability(ordinary: Split):
    stepwise, model = stepwise_of(ordinary)
    assert stepwise.sure_of(Trie.from_table(model.codes.table[:9])) is None
    stepwise, model = stepwise_of(ordinary, normalise="codes")
    assert stepwise.sure_of(model._searched(None)[0]) is None
