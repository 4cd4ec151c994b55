"""The transformer block: against PyTorch's own attention, padding, ``last``."""

import torch
from torch import nn

from foretaste.nn.transformer import SelfAttention, TransformerBlock

LENGTHS = torch.tensor([4, 7, 1])


def inputs() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 7, 12)


@torch.no_grad()
def test_attention_is_multi_head_attention():
    x = inputs()
    mine = SelfAttention(12, 3)
    other = nn.MultiheadAttention(12, 3, batch_first=True)
    other.in_proj_weight.copy_(mine.project.weight)
    assert other.in_proj_bias is not None
    other.in_proj_bias.copy_(mine.project.bias)
    other.out_proj.weight.copy_(mine.output.weight)
    other.out_proj.bias.copy_(mine.output.bias)
    padding = torch.arange(7) >= LENGTHS[:, None]
    expected, _ = other(x, x, x, key_padding_mask=padding, need_weights=False)
    real = torch.arange(7) < LENGTHS[:, None]
    torch.testing.assert_close(mine(x, LENGTHS)[real], expected[real], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_last_is_forward_at_the_last_place():
    x, block = inputs(), TransformerBlock(12, 2, 0.3).eval()
    expected = block(x, LENGTHS)[torch.arange(3), LENGTHS - 1]
    torch.testing.assert_close(block.last(x, LENGTHS), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_is_not_looked_at():
    x, block = inputs(), TransformerBlock(12, 2, 0.0)
    real = torch.arange(7) < LENGTHS[:, None]
    dirty = torch.where(real[..., None], x, torch.full_like(x, 9.0))
    found = block(dirty, LENGTHS)
    torch.testing.assert_close(found[real], block(x, LENGTHS)[real])
    alone = block(x[:1, :4], LENGTHS[:1])
    torch.testing.assert_close(found[0, :4], alone[0], rtol=1e-4, atol=1e-5)


def test_every_weight_learns():
    block = TransformerBlock(12, 2, 0.1)
    block(inputs(), LENGTHS).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
