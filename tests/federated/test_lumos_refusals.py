"""LUMOS with a language model that refuses some prompts, or is gone: the round goes on."""

from __future__ import annotations

import logging

import numpy as np

from foretaste.data.sequences import Sequences
from foretaste.federated.core.base import World
from foretaste.federated.fedavg import TABLE
from foretaste.federated.lumos import LUMOS, LUMOSConfig
from foretaste.language.views.chat import ChatConfig, ChatViews
from foretaste.language.views.chat_endpoint import Unanswered
from foretaste.language.views.making import ViewBook

from .rings import same, server_of, small_sasrec
from .test_lumos import LOCAL, Whole, titled

HISTORIES = Sequences.from_lists([[0, 1, 2], [3, 4, 5], [6, 7, 8], [18, 19, 20]])


class Troubled(Whole):
    """Refuses prompts with a word, and breaks down at prompts with another."""

    def __init__(self, refused: str = "-", deadly: str = "-") -> None:
        super().__init__()
        self.batch, self.refused, self.deadly = 3, refused, deadly

    def answers(self, prompts):
        if any(self.deadly in prompt for prompt in prompts):
            raise Unanswered("http://127.0.0.1:1/v1: no answer from m (refused).", {})
        answers = super().answers(prompts)
        pairs = zip(prompts, answers, strict=True)
        return [None if self.refused in prompt else answer for prompt, answer in pairs]


def federation(model, **config) -> LUMOS:
    world = World(titled(), small_sasrec(), seed=3)
    values = {"local": LOCAL, "clients": 1.0, "contrast": 0.5, "rounds": 2, **config}
    method = LUMOS(LUMOSConfig.model_validate(values), world)
    method._book = ViewBook(ChatViews(ChatConfig(), model, world.catalog), world.catalog)
    return method


def test_a_refused_prompt_costs_one_user_a_view_and_the_node_nothing(caplog):
    model = Troubled(refused="number 19")
    method = federation(model)
    server = server_of(method, HISTORIES, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert server.step().users == 4
    assert method.without_views == 2  # one user, two rounds
    assert [record.getMessage().count("refuses some") for record in caplog.records] == [1]
    # The others' answers were kept; the refused history is asked for again.
    assert len(model.prompts) == 4 * 3 + 3


def test_without_a_language_model_users_train_as_in_fedavg(caplog):
    gone = federation(Troubled(deadly="Plain"))
    plain = federation(Whole(), contrast=0)
    states = []
    with caplog.at_level(logging.WARNING):
        for method in (gone, plain):
            server = server_of(method, HISTORIES, 2)
            states.append(server.run().state)
    same(states[0], states[1], 1e-4)
    assert gone.without_views == 8 and plain.without_views == 0
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert "no answer from m" in said and "Plain" not in said


def test_what_was_answered_before_the_model_was_gone_is_used():
    model = Troubled(deadly="number 19")
    method = federation(model)
    server = server_of(method, HISTORIES, 1)
    assert server.step().users == 4
    assert method.without_views == 1
    model.deadly = "-"  # it is back
    assert server.step().users == 4
    assert method.without_views == 1
    assert len(model.prompts) == 4 * 3
    assert np.isfinite(server.run().state[TABLE]).all()
