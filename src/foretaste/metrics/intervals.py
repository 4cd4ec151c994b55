"""How sure a mean over users is, and whether two recommenders differ.

The user is the unit: users are drawn again, or have their two results exchanged; the events of one
user are never treated as independent. Everything random here is a function of the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NORMAL_FROM = 50_000
"""Above this many users the normal limit replaces resampling.

The mean of that many bounded values is normal to three digits, and resampling would only add its
own noise and seconds of work.
"""

# Numbers drawn at a time: 16 MB, whatever the number of users and of resamples.
_DRAWS_AT_A_TIME = 2_000_000


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """The mean of a - b over users, its interval, and how easily chance gives as much.

    Attributes:
        difference: mean of ``a - b``; positive when a is larger.
        low: lower end of the interval of the difference.
        high: upper end.
        p_value: two-sided; not corrected for other comparisons (see ``holm``).
        users: how many users were compared.
    """

    difference: float
    low: float
    high: float
    p_value: float
    users: int


def bootstrap_mean(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean over users with its percentile bootstrap interval (Efron and Tibshirani 1993, ch. 13).

    Above ``NORMAL_FROM`` users the interval is ``mean ± z s / sqrt(U)``.

    Args:
        values: ``[U]``, one per user, without NaN or infinity.
        level: the share of such intervals that hold the true mean, in (0, 1).
        resamples: how often U users are drawn with replacement.
        seed: the same seed gives the same interval.

    Returns:
        The interval; ``low`` and ``high`` are NaN for a single user, who shows no spread.

    Raises:
        ValueError: no values, a value that is not finite, or an option out of range.
    """
    users = _finite(values, "values")
    _check_options(level, resamples)
    mean = float(users.mean())
    if len(users) == 1:
        return Interval(mean, math.nan, math.nan)
    if len(users) > NORMAL_FROM:
        half = NormalDist().inv_cdf((1 + level) / 2) * users.std(ddof=1) / math.sqrt(len(users))
        return Interval(mean, float(mean - half), float(mean + half))
    low, high = np.quantile(_resampled_means(users, resamples, seed), _tails(level))
    return Interval(mean, float(low), float(high))


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    flips: int = 9_999,
    seed: int = 0,
) -> PairedDifference:
    """Compare two recommenders on the same users.

    The interval is that of ``bootstrap_mean`` on the differences. The p-value is that of Fisher's
    randomisation test (Smucker, Allan and Carterette, CIKM 2007): if the two are alike, each
    user's difference is as likely with the other sign, so signs are flipped at random and p is
    ``(count + 1) / (flips + 1)``, count being how often the mean comes out at least as far from 0.
    The added 1 is the assignment observed; p is thus never 0. When no user differs, p is 1. Above
    ``NORMAL_FROM`` users that differ, p comes from the normal limit of the same test.

    Args:
        a: ``[U]``, a metric of the first recommender for each user.
        b: ``[U]``, the same metric of the second, the same users in the same order.
        level: of the interval, in (0, 1).
        resamples: bootstrap resamples for the interval.
        flips: sign assignments drawn for the p-value; the smallest p is ``1 / (flips + 1)``.
        seed: the same seed gives the same answer.

    Raises:
        ValueError: a and b differ in length, are empty, or hold a value that is not finite; an
            option is out of range.
    """
    first, second = _finite(a, "a"), _finite(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} users and b has {len(second)}: pair them first.")
    difference = first - second
    interval = bootstrap_mean(difference, level=level, resamples=resamples, seed=seed)
    p_value = _sign_flip_p(difference, flips, seed)
    return PairedDifference(*interval, p_value, len(difference))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for being several (S. Holm, Scandinavian Journal of Statistics, 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below one that
    was smaller, or rises above 1. Reject where the adjusted value is below the level: the chance of
    a single false rejection is then below it too, however the tests depend on one another.

    Returns:
        Adjusted values in the order given.

    Raises:
        ValueError: a p-value is not in 0..1.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"p-values must be in 0..1, got {list(p_values)}.")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()


def _finite(values: npt.ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} must be one value for each of at least one user.")
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{name} is {array[bad][0]} for user {int(np.argmax(bad))}. Leave users without a "
            "value out before asking for a mean."
        )
    return array


def _check_options(level: float, draws: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    if draws < 1:
        raise ValueError(f"at least one draw is needed, got {draws}.")


def _tails(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


def _resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of ``resamples`` draws of U users with replacement: ``[resamples]``."""
    rng = np.random.default_rng(seed)
    users = len(values)
    at_a_time = max(1, _DRAWS_AT_A_TIME // users)
    means = np.empty(resamples)
    for start in range(0, resamples, at_a_time):
        stop = min(start + at_a_time, resamples)
        drawn = rng.integers(0, users, size=(stop - start, users), dtype=np.int32)
        means[start:stop] = values[drawn].mean(axis=1)
    return means


def _sign_flip_p(difference: Floats, flips: int, seed: int) -> float:
    """Two-sided p-value of the randomisation test that the differences centre on 0."""
    _check_options(0.5, flips)
    moved = difference[difference != 0]  # a user who does not differ adds 0 with either sign
    if len(moved) == 0:
        return 1.0
    observed = abs(moved.sum())
    if len(moved) > NORMAL_FROM:
        z = observed / math.sqrt(float(moved @ moved))
        return math.erfc(z / math.sqrt(2))  # 2 (1 - Phi(z)), exact where 1 - Phi would round to 0
    # Sums of the same numbers in another order differ in their last bits; equal means equal.
    bar = observed - 1e-12 * np.abs(moved).sum()
    # Eight signs are one random byte, and what each byte adds is looked up rather than multiplied.
    eights = np.append(moved, np.zeros(-len(moved) % 8)).reshape(-1, 8)  # [W, 8]
    signs = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1  # [256, 8]
    added = eights @ signs.T  # [W, 256]
    place = np.arange(len(eights))
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _DRAWS_AT_A_TIME // len(eights))
    count = 0
    for start in range(0, flips, at_a_time):
        rows = min(at_a_time, flips - start)
        drawn = rng.integers(0, 256, size=(rows, len(eights)), dtype=np.uint8)  # [rows, W]
        count += int(np.count_nonzero(np.abs(added[place, drawn].sum(axis=1)) >= bar))
    return (count + 1) / (flips + 1)
