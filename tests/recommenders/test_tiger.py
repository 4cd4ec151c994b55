"""TIGER: what a search finds is what training taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.codes.beam import FoundItems, score_catalog, share_found
from foretaste.codes.trie import Trie
from foretaste.data.split import Split
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.tiger import TIGER

from .generators import fitted, lost

HISTORIES = [[3], [0, 5, 3], [7, 1, 2, 9]]
KINDS = [
    pytest.param("tiger", {}, id="tiger"),
    pytest.param("tiger", {"normalise": "codes"}, id="tiger, codes"),
    pytest.param("tiger", {"reads": "codes"}, id="tiger, reading codes"),
    pytest.param("tiger", {"architecture": "decoder-only"}, id="tiger, decoder only"),
    pytest.param(
        "tiger",
        {"architecture": "decoder-only", "normalise": "codes"},
        id="tiger, decoder only, codes",
    ),
    pytest.param("s2gr", {"align": 0, "contrast": 0, "regularise": 0}, id="stepwise"),
    pytest.param(
        "s2gr", {"align": 0, "contrast": 0, "regularise": 0, "thinking": "first"}, id="first"
    ),
    pytest.param("s2gr", {"thinking": "blank"}, id="blank"),
    pytest.param("s2gr", {"thinking": "blank", "normalise": "codes"}, id="blank, codes"),
]


def exact_scores(model: Generator, history: list[int]) -> torch.Tensor:
    """Log-probabilities ``[items]``, every path written on its own."""
    assert isinstance(model, TIGER)
    network = model.writer
    asking = network.ask(torch.tensor([history]), torch.tensor([len(history)]))
    trie = Trie.from_table(model.codes.table)
    with torch.no_grad():
        return score_catalog(lambda step: network.write(step, asking), trie, 1)[0]


@pytest.mark.parametrize(("name", "parameters"), KINDS)
def test_scores_are_what_training_lowers(name: str, parameters: dict, ordinary: Split):
    """The loss of an item is its negative log-probability, thoughts and all."""
    model = fitted(name, ordinary, **parameters)
    for history in HISTORIES:
        scores = exact_scores(model, history)
        for item in (0, 11, 29):
            assert -float(scores[item]) == pytest.approx(lost(model, history, item), abs=1e-3)


@pytest.mark.parametrize(("name", "parameters"), KINDS)
def test_a_beam_of_everything_is_exact_and_a_narrow_one_nearly(
    name: str, parameters: dict, ordinary: Split
):
    model = fitted(name, ordinary, **parameters)
    shares = []
    for history in HISTORIES:
        exact = exact_scores(model, history)
        whole = model.recommend([[f"i{item:04}" for item in history]], 30, exclude="none")
        np.testing.assert_allclose(whole.scores[0], exact[whole.items[0]], atol=1e-3)
        assert (np.diff(whole.scores[0]) <= 1e-4).all()
        narrow = model.recommend([[f"i{item:04}" for item in history]], 5, exclude="none")
        found = FoundItems(torch.from_numpy(narrow.items).long(), torch.zeros(1, 5))
        shares.append(float(share_found(found, exact[None], 5)))
    assert np.mean(shares) >= 0.6


@pytest.mark.parametrize(("name", "parameters"), KINDS)
def test_probabilities_go_to_illegal_paths_only_where_all_codes_share_them(
    name: str, parameters: dict, ordinary: Split
):
    model = fitted(name, ordinary, **parameters)
    total = float(exact_scores(model, [0, 5]).exp().sum())
    if model.config.normalise == "catalog":
        assert total == pytest.approx(1, abs=1e-4)
    else:
        assert 0 < total < 0.999
