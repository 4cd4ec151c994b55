"""DIN: attention by hand."""

from __future__ import annotations

import numpy as np
import torch

from foretaste.recommenders.core.ranker_network import History
from foretaste.recommenders.din import DIN, DINConfig, DINNetwork


def network(**parameters) -> DINNetwork:
    torch.manual_seed(0)
    made = DINNetwork(12, 0, DINConfig(**{"dim": 8, "hidden": 8, "max_length": 5, **parameters}))
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made.eval()


@torch.no_grad()
def test_weights_by_hand():
    made = network()
    history = History(torch.tensor([[3, 7, 1]]), None, torch.tensor([3]))
    memory = made.remember(history)
    query = torch.randn(1, 2, 1, 4)
    ends = torch.tensor([[2]])  # the candidate sees items 3 and 7
    weights = made.weigh(memory, query, ends, torch.tensor([[0]]))[0, :, 0]
    x = made.norm(made.items.weight[[3, 7]])
    keys = made.key_values(x)[0].view(2, 2, 4)  # [event, head, K]
    for head in range(2):
        by_distance = made.by_distance.weight[:, head]
        logits = [
            float(query[0, head, 0] @ keys[event, head]) + float(by_distance[1 - event])
            for event in range(2)
        ]
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(weights[head], [*expected, 0], rtol=1e-5)


@torch.no_grad()
def test_without_a_history_the_item_alone_counts():
    made = network()
    history = History(torch.tensor([[3, 7]]), None, torch.tensor([2]))
    candidates, nothing = torch.arange(12)[None], torch.tensor([[0]])
    logits = made(history, candidates, nothing)
    other = made(History(torch.tensor([[5, 9]]), None, torch.tensor([2])), candidates, nothing)
    torch.testing.assert_close(logits, other)
    # interest and taste are what their layers make of nothing.
    said = made.interest.bias + made.taste.bias
    item = made.items.weight[:12]
    hidden = made.of_interest(made.interest.bias) + made.of_taste(made.taste.bias)
    hidden = torch.nn.functional.gelu(hidden + made.of_item(item))
    expected = made.often[:12] + item @ said + made.verdict(hidden)[:, 0]
    torch.testing.assert_close(logits[0], expected)


def test_the_candidate_decides_what_is_looked_at():
    assert DIN(heads=4, dim=32).config.heads == 4
    made = network()
    history = History(torch.tensor([[3, 7, 1]]), None, torch.tensor([3]))
    candidates, ends = torch.tensor([[2, 9]]), torch.tensor([[3]])
    query = made.query(made.items.weight[candidates]).unflatten(-1, (2, 4)).transpose(1, 2)
    weights = made.weigh(made.remember(history), query, ends, candidates)
    assert (weights[:, :, 0] - weights[:, :, 1]).abs().max() > 1e-3
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 2))
