"""Windowed attention: against a plain softmax, its window, its two ways of being asked."""

import pytest
import torch

from foretaste.nn.attention import Cached, WindowedAttention, WindowedBlock
from foretaste.nn.collective import CollectiveConfig, key_values
from foretaste.nn.key_values import FullKeyValues


def attention(window: int) -> WindowedAttention:
    torch.manual_seed(0)
    made = WindowedAttention(12, 3, window, key_values(12, 3, "full", CollectiveConfig()))
    for parameter in made.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    return made.eval()


def plain(module: WindowedAttention, x: torch.Tensor) -> torch.Tensor:
    """The definition, event by event."""
    assert isinstance(module.key_values, FullKeyValues)
    key, value = module.key_values.project(x).chunk(2, -1)
    query, out = module.query(x), torch.zeros_like(x)
    for row in range(len(x)):
        for now in range(x.shape[1]):
            seen = range(max(0, now - module.window + 1), now + 1)
            mixed = []
            for head in range(3):
                part = slice(4 * head, 4 * head + 4)
                scores = torch.stack(
                    [
                        query[row, now, part] @ key[row, then, part] / 2
                        + module.by_distance[head, now - then]
                        for then in seen
                    ]
                )
                mixed.append(torch.softmax(scores, 0) @ value[row, list(seen), part])
            out[row, now] = module.output(torch.cat(mixed))
    return out


@pytest.mark.parametrize("window", [1, 3, 4, 9, 20])
@torch.no_grad()
def test_forward_is_the_definition(window: int):
    module, x = attention(window), torch.randn(2, 9, 12)  # 3 and 4: in blocks
    torch.testing.assert_close(module(x), plain(module, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [2, 5, 20])
@torch.no_grad()
def test_last_is_forward_at_the_last_place(window: int):
    module, x, lengths = attention(window), torch.randn(3, 9, 12), torch.tensor([4, 9, 1])
    expected = module(x)[torch.arange(3), lengths - 1]
    torch.testing.assert_close(module.last(x, lengths), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [1, 4, 20])
@torch.no_grad()
def test_a_block_is_extended_by_any_number_of_events(window: int):
    torch.manual_seed(1)
    block = WindowedBlock(12, 3, window, 0.2, attention(window).key_values).eval()
    x = torch.randn(2, 11, 12)
    whole = block(x)
    for known, asking in [(0, 11), (0, 1), (10, 1), (6, 5), (6, 2)]:
        earlier = Cached(block.pack(x[:, :known]), None, None)
        found, fresh = block.extend(x[:, known:], earlier, asking)
        torch.testing.assert_close(found, whole[:, -asking:], rtol=1e-4, atol=1e-5)
        assert torch.equal(fresh, block.pack(x[:, known:]))


@torch.no_grad()
def test_the_shorter_of_two_histories_does_not_see_what_is_not_there():
    module, x = attention(6), torch.randn(2, 6, 12)
    expected = module(x[1:, 3:])[:, -1]  # three events
    records = module.key_values.pack(x[:, :5])
    records[1, :3] = 77
    absent = torch.tensor([[False] * 5, [True] * 3 + [False] * 2])
    found, _ = module.extend(x[:, 5:], Cached(records, absent, None), 1)
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], module(x[:1])[:, -1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_lies_before_the_window_is_not_looked_at():
    module, x = attention(3), torch.randn(1, 10, 12)
    changed = x.clone()
    changed[:, :4] += 1
    before, after = module(x), module(changed)
    torch.testing.assert_close(after[:, 6:], before[:, 6:])
    assert not torch.allclose(after[:, 5], before[:, 5])


@torch.no_grad()
def test_new_weights_are_used_at_once():
    module, x = attention(4), torch.randn(1, 4, 12)
    earlier = Cached(module.key_values.pack(x[:, :3]), None, None)
    module.extend(x[:, 3:], earlier, 1)
    module.train()
    module.by_distance.add_(torch.randn_like(module.by_distance))
    module.eval()
    found, _ = module.extend(x[:, 3:], earlier, 1)
    torch.testing.assert_close(found[:, 0], module(x)[:, -1], rtol=1e-4, atol=1e-5)
