"""Transition probabilities by hand."""

import numpy as np
import pytest

from foretaste.data.sequences import Sequences
from foretaste.recommenders.markov import Markov


def fitted(split_of, **config) -> Markov:
    # leave-last-out keeps all but the last two events of every row for training:
    # 0 1 2 / 0 1 0 2 / 0 2 / 3.
    model = Markov(**config)
    split = split_of([[0, 1, 2, 8, 9], [0, 1, 0, 2, 8, 9], [0, 2, 8, 9], [3, 8, 9]])
    assert [row.tolist() for row in split.train] == [[0, 1, 2], [0, 1, 0, 2], [0, 2], [3]]
    model.fit(split)
    return model


def test_transitions_by_hand(split_of):
    model = fitted(split_of)
    # From 0: to 1 twice, to 2 twice. From 1: to 2, to 0. From 2 and 3: never followed.
    expected = [[0, 0.5, 0.5, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(model.transitions.toarray(), expected)


def test_scores_by_hand(split_of):
    model = fitted(split_of, backoff=0.2)
    share = np.array([4, 2, 3, 1]) / 10
    scores = model._score(Sequences.from_lists([[1, 0], [2], [0, 3]])).numpy()
    np.testing.assert_allclose(scores[0], 0.8 * np.array([0, 0.5, 0.5, 0]) + 0.2 * share)
    np.testing.assert_allclose(scores[1:], np.tile(0.2 * share, (2, 1)), rtol=1e-6)


def test_older_events_speak_less(split_of):
    model = fitted(split_of, last=2, decay=0.25, backoff=0)
    scores = model._score(Sequences.from_lists([[2, 1, 0], [1]])).numpy()
    newest, older = np.array([0, 0.5, 0.5, 0]), np.array([0.5, 0, 0.5, 0])
    np.testing.assert_allclose(scores[0], (newest + 0.25 * older) / 1.25, rtol=1e-6)
    np.testing.assert_allclose(scores[1], older)


@pytest.mark.parametrize("last", [1, 3])
def test_transitions_do_not_cross_users(last: int, split_of):
    model = Markov(last=last, backoff=0)
    model.fit(split_of([[0, 1, 8, 9], [2, 3, 8, 9]] * 3))
    assert (model._score(Sequences.from_lists([[1], [3]])) == 0).all()
    assert model._score(Sequences.from_lists([[0]])).tolist() == [[0, 1, 0, 0]]
