"""What every recommender must learn of a log whose rule is known."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.data.split import Split
from foretaste.recommenders.core.base import RunContext
from foretaste.recommenders.core.generator import Generator
from foretaste.recommenders.core.ranking import rank_queries
from foretaste.recommenders.core.registry import find, names
from foretaste.recommenders.core.sequence import SequenceRecommender

from .generators import SLOWLY
from .test_conformance import NOT_PERSONAL, TRAIN, tiny


@pytest.mark.parametrize(
    "name",
    [n for n in names() if n == "markov" or issubclass(find(n), SequenceRecommender | Generator)],
)
def test_sequence_models_learn_a_cycle(name: str, cyclic: Split):
    writes = issubclass(find(name), Generator)
    model = tiny(name, train=TRAIN | SLOWLY) if writes else tiny(name, epochs=45)
    model.fit(cyclic, RunContext(seed=0))
    hits = rank_queries(model, cyclic.test, ["hr@1"]).metrics["hr@1"]
    assert hits.mean() > 0.97
    longer = Sequences.from_lists([((np.arange(10) + start) % 12).tolist() for start in range(12)])
    found = model.recommend(longer, 1).items[:, 0]  # no history in training had so many events
    assert (found == (np.arange(12) + 10) % 12).all()


@pytest.mark.parametrize("name", [n for n in names() if n not in NOT_PERSONAL])
def test_recommendations_stay_in_the_group(name: str, checkerboard: Split):
    model = tiny(name, epochs=12)
    model.fit(checkerboard, RunContext(seed=0))
    found = model.recommend(checkerboard.test.histories, 3)
    group = np.array([history[0] // 10 for history in checkerboard.test.histories])
    assert (found.items // 10 == group[:, None]).all()
