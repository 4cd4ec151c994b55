"""Clipping, Gaussian noise, and the epsilon that they come to.

A round is one release of a Gaussian mechanism on a Poisson sample of users: every user takes part
by a coin of its own, which is what the accounting below assumes. Noise is drawn from a secret, not
from the seed of the run: whoever knows the seed must not be able to subtract it. (NumPy's generator
is not a cryptographic one.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from scipy.special import gammaln

from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.config import PrivacyConfig
from foretaste.federated.core.updates import Updates

ORDERS = (*range(2, 64), *range(64, 257, 8), 320, 384, 512, 768, 1024)
"""Orders of the Renyi divergence that the accountant tries."""


def clipped(updates: Updates, config: PrivacyConfig) -> Updates:
    """Updates of norm ``config.clip`` at most, each of one user; all votes become 1."""
    factors = (config.clip / updates.norms().clamp_min(1e-12)).clamp(max=1.0)
    small = updates.scaled(factors)
    return Updates(torch.ones(len(updates)), small.parts)


def noisy(sums: Arrays, config: PrivacyConfig, times: float, secret: Iterable[int]) -> Arrays:
    """Sums with noise of standard deviation ``noise * clip * sqrt(times)`` on every value.

    Args:
        sums: of clipped updates.
        config: noise and clip.
        times: how many draws of noise are added up: users of a node that each add their own.
        secret: whole numbers that nobody else knows.
    """
    rng = np.random.default_rng(list(secret))
    deviation = np.float32(config.noise * config.clip * math.sqrt(times))
    return {
        name: array + deviation * rng.standard_normal(array.shape, np.float32)
        for name, array in sorted(sums.items())
    }


def epsilon(noise: float, share: float, rounds: int, delta: float) -> float:
    """Epsilon of (epsilon, delta) differential privacy of one user's participation.

    Each of ``rounds`` rounds adds noise of ``noise`` times the clipping norm to a sum over a
    Poisson sample that a user is in with odds ``share``. Renyi accounting with integer orders:
    Mironov, Talwar and Zhang 2019 (section 3.3), converted as in Canonne, Kamath and Steinke 2020
    (proposition 12). Neighbouring data differ in one user who is there or not.

    Returns:
        Infinity without noise, 0 without rounds.
    """
    if not rounds or not share:
        return 0.0
    if not noise:
        return math.inf
    best = math.inf
    for order in ORDERS:
        spent = rounds * renyi(noise, share, order)
        found = spent + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        best = min(best, found)
    return max(best, 0.0)


def local_epsilon(noise: float, rounds: int, delta: float) -> float:
    """Epsilon of a user who adds its own noise and takes part in ``rounds`` rounds.

    What leaves is seen by itself, so being sampled hides nothing. Two updates of one user differ
    by twice the clipping norm at most, so noise counts half.
    """
    return epsilon(noise / 2, 1.0, rounds, delta)


def renyi(noise: float, share: float, order: int) -> float:
    """Renyi divergence of one subsampled Gaussian release, for a whole ``order`` from 2.

    The divergence of ``(1 - q) N(0, s^2) + q N(1, s^2)`` from ``N(0, s^2)``, in closed form:
    ``log sum_k C(a, k) (1 - q)^(a - k) q^k exp(k (k - 1) / (2 s^2)) / (a - 1)``.
    """
    if share == 1:
        return order / (2 * noise**2)
    k = np.arange(order + 1)
    choices = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = choices + (order - k) * math.log1p(-share) + k * math.log(share)
    return float(np.logaddexp.reduce(terms + k * (k - 1) / (2 * noise**2))) / (order - 1)
