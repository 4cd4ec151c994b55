"""Random numbers of a user in a round, the same however users are grouped.

A draw is a hash of where it is used (seed, round, user, place), so that a user trained alone and
the same user trained among thousands see the same negatives and the same dropout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.nn.dropout import Dropout

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_LOW = (1 << 34) - 1, (1 << 37) - 1, (1 << 33) - 1
_PLACES = 1 << 16
"""Events, windows or words of a user along one axis, at most."""


def user_keys(user_ids: Iterable[str]) -> np.ndarray:
    """A number for every user id, uint64 ``[users]``: it does not depend on other users."""
    digests = [hashlib.blake2b(str(one).encode(), digest_size=8).digest() for one in user_ids]
    return np.frombuffer(b"".join(digests), np.dtype("<u8")).astype(np.uint64)


def hashed(keys: np.ndarray, *places: int) -> np.ndarray:
    """Uniform uint64 of the shape of ``keys``, for this seed, round or place (splitmix64)."""
    state = np.asarray(keys, np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is meant
        for place in places:
            state = _mixed(state + np.uint64((place + 1) * _GOLDEN % 2**64))
    return state


def draws(keys: np.ndarray, count: int) -> np.ndarray:
    """``count`` uniform numbers of every key, uint64 ``[keys, count]``."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        return _mixed(np.asarray(keys, np.uint64)[:, None] + steps)


def uniform(keys: np.ndarray, *places: int) -> np.ndarray:
    """Uniform float64 in [0, 1) of the shape of ``keys``."""
    return (hashed(keys, *places) >> np.uint64(11)) * 2.0**-53


def _mixed(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX[0])
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX[1])
    return state ^ (state >> np.uint64(31))


class Keys:
    """The key of the user whose network is running; set before every pass."""

    def __init__(self) -> None:
        """No key yet: nothing is dropped."""
        self.key: Tensor | None = None
        self.calls = 0

    def begin(self, key: Tensor | None) -> None:
        """A new pass with ``key`` int64 ``[]``; None drops nothing."""
        self.key, self.calls = key, 0


class KeyedDropout(nn.Module):
    """Inverted dropout whose mask is a hash of a key, not of a generator.

    As in ``foretaste.nn.dropout`` one 64-bit word decides eight elements, and the probability is
    rounded to a multiple of 1/256. A place is known by its coordinates, so padding on the right
    changes nothing.
    """

    def __init__(self, p: float, keys: Keys) -> None:
        """``p`` in [0, 1); ``keys`` is shared by all dropouts of a network."""
        super().__init__()
        self.p, self.keys = p, keys

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, the same shape back."""
        if not self.training or self.p == 0 or self.keys.key is None:
            return x
        self.keys.calls += 1
        threshold = min(max(round(self.p * 256), 1), 255)
        words = _words(self.keys.key + _signed(self.keys.calls * _GOLDEN), x)
        shifts = torch.arange(0, 64, 8, device=x.device)
        draws = (words.unsqueeze(-1) >> shifts) & 255  # [..., D / 8, 8]
        draws = draws.flatten(-2)[..., : x.shape[-1]]
        return x * ((draws >= threshold).to(x.dtype) * (256 / (256 - threshold)))


def keyed(network: nn.Module) -> Keys:
    """Make every dropout of ``network`` a ``KeyedDropout``; returns where the key is set."""
    keys = Keys()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Dropout | nn.Dropout):
                setattr(module, name, KeyedDropout(child.p, keys))
    return keys


def torch_keys(keys: np.ndarray) -> Tensor:
    """uint64 keys as int64 of the same bits: PyTorch computes with those."""
    return torch.from_numpy(np.ascontiguousarray(keys).view(np.int64))


def _words(key: Tensor, x: Tensor) -> Tensor:
    """A random int64 word for every eight places along the last axis of ``x``."""
    shape = (*x.shape[:-1], -(-x.shape[-1] // 8))
    place = torch.zeros((), dtype=torch.int64, device=x.device)
    for size in shape:
        place = place.unsqueeze(-1) * _PLACES + torch.arange(size, device=x.device)
    state = key + place * _signed(_GOLDEN)
    state = (state ^ ((state >> 30) & _LOW[0])) * _signed(_MIX[0])
    state = (state ^ ((state >> 27) & _LOW[1])) * _signed(_MIX[1])
    return state ^ ((state >> 31) & _LOW[2])


def _signed(number: int) -> int:
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number
