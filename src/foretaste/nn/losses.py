"""Losses over a whole catalog whose memory does not grow with events x items."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOGITS_AT_ONCE = 1_700_000
"""Float32 logits held at a time (7 MB): small enough to stay in the last cache, large enough for
matrix products at full speed. Of bfloat16 four times as many are held, since every chunk's share
of the item gradients is added up in float32, which costs more than the cache gives."""
NUMBERS_AT_ONCE = 1_000_000
"""Numbers of the vectors of sampled items that are held at a time (4 MB)."""


class _MadeOnTheWay(torch.autograd.Function):
    """A loss of ``hidden`` and ``weight``, its first arguments, that saves their gradients."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_hidden, grad_weight = ctx.saved_tensors
        others = [None] * (len(ctx.needs_input_grad) - 2)
        return grad_hidden * grads[0], grad_weight * grads[0], *others


class _LinearCrossEntropy(_MadeOnTheWay):
    """Sum of cross-entropies of ``hidden @ weight.T``, with gradients made on the way.

    Logits exist for one chunk of events at a time, in a buffer that is used again: the same
    products as autograd's, without writing [events, items] to memory three times.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, half: bool) -> Tensor:
        events, items = len(hidden), len(weight)
        dtype = torch.bfloat16 if half else hidden.dtype
        chunk = min(max(LOGITS_AT_ONCE * (4 if half else 1) // items, 64), events)
        hidden, weight = hidden.detach(), weight.detach()
        vectors = weight.to(dtype)  # [N, D]
        logits = torch.empty(chunk, items, dtype=dtype, device=hidden.device)
        share = torch.empty_like(vectors)
        # The target's part of loss and gradients needs no softmax and keeps full precision.
        loss = -(hidden * weight[targets]).sum(dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        for first in range(0, events, chunk):
            part = hidden[first : first + chunk].to(dtype)  # [C, D]
            probability = logits[: len(part)]
            torch.mm(part, vectors.T, out=probability)  # [C, N]
            top = probability.amax(1).float()
            torch.softmax(probability, 1, out=probability)
            # log of the normaliser from the most likely item, whose share is never tiny.
            loss += (top - probability.amax(1).float().log()).sum()
            grad_hidden[first : first + chunk] = probability @ vectors
            if half:
                grad_weight += torch.mm(probability.T, part, out=share)
            else:
                grad_weight.addmm_(probability.T, part)
        grad_hidden -= weight[targets]
        grad_weight.index_add_(0, targets, hidden, alpha=-1)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, half: bool = False
) -> Tensor:
    """Sum over events of the cross-entropy of a softmax over the whole catalog.

    Args:
        hidden: float ``[events, dim]``.
        weight: float ``[items, dim]``, the item vectors.
        targets: int64 ``[events]``, each in ``[0, items)``.
        half: make logits and their products in bfloat16 (faster from some 5,000 items on).

    Returns:
        A scalar. Memory is bounded by a chunk of ``LOGITS_AT_ONCE`` logits and ``weight``.
    """
    if not len(hidden):
        return hidden.sum() + 0 * weight.sum()
    # Where autocast is on, it must not choose again what is half and what is whole in here.
    with torch.autocast(hidden.device.type, enabled=False):
        return _LinearCrossEntropy.apply(hidden.to(weight.dtype), weight, targets, half)  # type: ignore[no-any-return]


def sampled_softmax(
    hidden: Tensor, weight: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Sum of cross-entropies over the target and shared negatives, corrected for their frequency.

    A negative that is expected q times among those drawn stands for 1/q others, so its logit
    loses log q (Bengio and Senecal 2008; Yi et al., RecSys 2019). The target is there with
    certainty: as a drawn copy of it is left out, its own logit loses nothing. Correcting it too,
    as is often done, over-weights popular items, however many negatives there are.

    Args:
        hidden: float ``[events, dim]``.
        weight: float ``[items, dim]``.
        targets: int64 ``[events]``.
        negatives: int64 ``[negatives]``, shared by all events.
        log_q: float ``[items]``, log of the expected count of an item among the negatives.
    """
    wanted = (hidden * weight[targets]).sum(1)  # [T]
    others = hidden @ weight[negatives].T - log_q[negatives]  # [T, S]
    others = others.masked_fill(negatives == targets[:, None], -math.inf)
    return F.cross_entropy(
        torch.cat([wanted[:, None], others], 1),
        torch.zeros_like(targets),
        reduction="sum",
    )


def gbce(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    calibration: float = 0.75,
) -> Tensor:
    """Sum of generalised binary cross-entropies (gSASRec: Petrov and Macdonald, RecSys 2023).

    The probability of the target is raised to the power beta, which undoes the overconfidence
    that sampling causes: beta = a (t (1 - 1/a) + 1/a) with sampling rate a = S / (N - 1) and
    ``calibration`` t (0: plain binary cross-entropy, 1: fully calibrated).

    Args:
        hidden: float ``[events, dim]``.
        weight: float ``[items, dim]``.
        targets: int64 ``[events]``.
        negatives: int64 ``[events, S]``, drawn uniformly, each event's own.
        calibration: t.
    """
    # More draws than items do not make the sample more than complete.
    rate = min(1.0, negatives.shape[1] / max(len(weight) - 1, 1))
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = hidden.to(weight.dtype)
        return _GeneralisedCrossEntropy.apply(hidden, weight, targets, negatives, beta)  # type: ignore[no-any-return]


class _GeneralisedCrossEntropy(_MadeOnTheWay):
    """``gbce``, with gradients made on the way, as ``_LinearCrossEntropy`` makes them.

    Every event has items of its own, so their vectors are many times what the events are. They
    exist for a chunk of events at a time, and their place is used again for their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, negatives: Tensor, beta: float
    ) -> Tensor:
        hidden, weight = hidden.detach(), weight.detach()
        vectors = weight[targets]  # [T, D]
        wanted = (hidden * vectors).sum(1)  # [T]
        loss = -beta * F.logsigmoid(wanted).sum()
        slope = -beta * torch.sigmoid(-wanted)[:, None]  # [T, 1]
        grad_hidden = slope * vectors
        grad_weight = torch.zeros_like(weight).index_add_(0, targets, slope * hidden)
        chunk = max(1, NUMBERS_AT_ONCE // (negatives.shape[1] * weight.shape[1]))
        for first in range(0, len(hidden), chunk):
            rows = slice(first, first + chunk)
            drawn, asking = negatives[rows], hidden[rows]  # [C, S], [C, D]
            vectors = F.embedding(drawn, weight)  # [C, S, D]
            others = (vectors @ asking[:, :, None]).squeeze(2)  # [C, S]
            others.masked_fill_(drawn == targets[rows, None], -math.inf)
            loss += F.softplus(others).sum()
            share = torch.sigmoid(others)
            grad_hidden[rows] += (share[:, None] @ vectors).squeeze(1)
            torch.mul(share[:, :, None], asking[:, None], out=vectors)
            grad_weight.index_add_(0, drawn.flatten(), vectors.flatten(0, 1))
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss
