"""Is what was clicked put before what was not, and is the probability of a click right?

AUC counts pairs over all impressions, GAUC within users. Nothing loops over users: a user's figures
are sums over a stretch of sorted arrays.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foretaste.errors import NotNumbersError
from foretaste.metrics.intervals import Interval

Floats = npt.NDArray[np.float64]

SMALLEST = float(np.finfo(np.float64).eps)
"""Probabilities are kept this far from 0 and 1: one confident error costs 36, not infinity."""

# Weights held at a time while users are drawn again: 32 MB.
_WEIGHTS_AT_A_TIME = 4_000_000


class GroupedAUC(NamedTuple):
    """GAUC: the mean of AUC over users, each counted as often as it has impressions.

    Attributes:
        value: in 0..1.
        users: how many users have both labels; the others have no AUC and are not counted.
    """

    value: float
    users: int


class UserClicks(NamedTuple):
    """Figures of every user, in ascending order of ``users``, for comparing runs user by user.

    Attributes:
        users: int64 ``[U]``, who has impressions.
        auc: float64 ``[U]``, NaN for a user without both labels.
        log_loss: float64 ``[U]``, the mean over the user's impressions.
        impressions: int64 ``[U]``.
    """

    users: npt.NDArray[np.int64]
    auc: Floats
    log_loss: Floats
    impressions: npt.NDArray[np.int64]


class ClickFigures(NamedTuple):
    """What probabilities of clicks come to.

    Attributes:
        auc: over all impressions.
        gauc: the mean over users.
        gauc_users: how many users it counts.
        log_loss: the mean over all impressions, in nats.
        impressions: how many there are.
    """

    auc: float
    gauc: float
    gauc_users: int
    log_loss: float
    impressions: int


class ClickIntervals(NamedTuple):
    """AUC, GAUC and log-loss with their intervals; GAUC is NaN when no user has both labels."""

    auc: Interval
    gauc: Interval
    log_loss: Interval


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The chance that a click scores above an impression without one; a tie counts half.

    Args:
        labels: ``[n]`` of 0 and 1.
        scores: ``[n]``, any numbers; only their order counts.

    Raises:
        NotNumbersError: a score is NaN.
        ValueError: lengths differ, a label is neither 0 nor 1, or one of the labels does not occur.
    """
    clicked, values = _checked(labels, scores)
    found = _group_aucs(clicked, values, np.zeros(len(clicked), np.int64), 1)[0]
    if np.isnan(found):
        raise ValueError(f"AUC needs both labels; all {len(clicked)} impressions have one.")
    return float(found)


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, users: npt.ArrayLike) -> GroupedAUC:
    """The mean of AUC over users with both labels, weighted by impressions (Zhu et al., KDD 2017).

    Args:
        labels: ``[n]`` of 0 and 1.
        scores: ``[n]``.
        users: ``[n]``, whole numbers, whose impression it is; in any order.

    Raises:
        ValueError: as of ``auc``, or no user has both labels.
    """
    clicked, values = _checked(labels, scores)
    _, group = _grouped(users, len(clicked))
    count = np.bincount(group)
    found = _group_aucs(clicked, values, group, len(count))
    both = ~np.isnan(found)
    if not both.any():
        raise ValueError(f"GAUC needs a user with both labels; none of {len(count)} has.")
    return GroupedAUC(float(np.average(found[both], weights=count[both])), int(both.sum()))


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The mean of -log of the probability given to what happened, in nats.

    Raises:
        ValueError: lengths differ, there is no impression, a label is neither 0 nor 1, or a
            probability lies outside 0..1.
    """
    return float(_losses(*_checked(labels, probabilities)).mean())


def user_clicks(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, users: npt.ArrayLike
) -> UserClicks:
    """Every user's own figures: pair two of them with ``paired_difference``.

    Raises:
        ValueError: as of ``log_loss``.
    """
    clicked, values = _checked(labels, probabilities)
    known, group = _grouped(users, len(clicked))
    count = np.bincount(group)
    losses = np.bincount(group, weights=_losses(clicked, values)) / count
    return UserClicks(known, _group_aucs(clicked, values, group, len(count)), losses, count)


def click_figures(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, users: npt.ArrayLike
) -> ClickFigures:
    """AUC, GAUC and log-loss at once.

    Raises:
        ValueError: as of ``auc``, ``gauc`` and ``log_loss``.
    """
    grouped = gauc(labels, probabilities, users)
    overall, loss = auc(labels, probabilities), log_loss(labels, probabilities)
    return ClickFigures(overall, grouped.value, grouped.users, loss, len(np.asarray(labels)))


def click_intervals(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    users: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ClickIntervals:
    """AUC, GAUC and log-loss with bootstrap intervals: users are drawn with all impressions.

    Args:
        labels: ``[n]`` of 0 and 1.
        probabilities: ``[n]``.
        users: ``[n]``, whose impression it is.
        level: the share of such intervals that hold the true figure, in (0, 1).
        resamples: how often the users are drawn.
        seed: the same seed gives the same intervals.

    Raises:
        ValueError: as of ``auc`` and ``log_loss``, or an option is out of range.
    """
    own = user_clicks(labels, probabilities, users)
    # What knows nothing has an AUC of 0.5 on every draw.
    nothing = np.zeros(len(np.asarray(labels)))
    over = auc_difference(
        labels, probabilities, nothing, users, level=level, resamples=resamples, seed=seed
    )
    both = ~np.isnan(own.auc)
    drawn = level, resamples, seed
    return ClickIntervals(
        Interval(*(end + 0.5 for end in over)),
        _weighted_interval(own.auc[both], own.impressions[both], *drawn),
        _weighted_interval(own.log_loss, own.impressions, *drawn),
    )


def auc_difference(
    labels: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    users: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """AUC of ``a`` minus that of ``b`` on the same impressions, with its bootstrap interval.

    AUC is no mean over users, so ``paired_difference`` cannot judge it: here users are drawn with
    replacement, each with all impressions, and both are computed on every draw.

    Args:
        labels: ``[n]`` of 0 and 1.
        a: ``[n]``, scores of the first model.
        b: ``[n]``, scores of the second, of the same impressions in the same order.
        users: ``[n]``, whose impression it is.
        level: the share of such intervals that hold the true difference, in (0, 1).
        resamples: how often the users are drawn.
        seed: the same seed gives the same interval.

    Returns:
        The interval; ``low`` and ``high`` are NaN for a single user, who shows no spread.

    Raises:
        ValueError: as of ``auc``, or an option is out of range.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level = {level} must be in (0, 1), resamples = {resamples} at least 1.")
    value = auc(labels, a) - auc(labels, b)
    clicked, first = _checked(labels, a)
    _, second = _checked(labels, b)
    _, group = _grouped(users, len(clicked))
    number = int(group.max()) + 1
    if number == 1:
        return Interval(value, math.nan, math.nan)
    pairs = [_Pairs.of(clicked, scores, group) for scores in (first, second)]
    rng, share = np.random.default_rng(seed), np.full(number, 1 / number)
    drawn = (rng.multinomial(number, share) for _ in range(resamples))  # [U] each
    found = np.array([pairs[0].auc(times) - pairs[1].auc(times) for times in drawn])
    # Of very few users, a draw may hold one label alone, and then has no AUC.
    found = found[~np.isnan(found)]
    if not len(found):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _weighted_interval(
    values: Floats, weights: npt.NDArray[np.int64], level: float, resamples: int, seed: int
) -> Interval:
    """The mean of users' ``values`` ``[U]``, each counted by its weight, users drawn again."""
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(np.average(values, weights=weights))
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    rng, share = np.random.default_rng(seed), np.full(len(values), 1 / len(values))
    found: list[Floats] = []
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // len(values))
    for start in range(0, resamples, at_a_time):
        times = rng.multinomial(len(values), share, size=min(at_a_time, resamples - start))
        found.append(times @ (values * weights) / (times @ weights))  # [R]
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Floats]:
    marks, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if marks.ndim != 1 or marks.shape != values.shape or not len(marks):
        raise ValueError(
            f"give one label and one score for each of at least one impression, not "
            f"{list(marks.shape)} and {list(values.shape)}."
        )
    wrong = ~np.isin(marks, (0, 1))
    if wrong.any():
        raise ValueError(
            f"label {marks[wrong][0]} of impression {int(wrong.argmax())} is not 0 or 1."
        )
    missing = np.isnan(values)
    if missing.any():
        raise NotNumbersError(f"the score of impression {int(missing.argmax())} is NaN.")
    return marks.astype(bool), values


def _grouped(users: npt.ArrayLike, length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray]:
    """The users, ascending, and of each impression the place of its user among them."""
    named = np.asarray(users)
    if named.shape != (length,) or named.dtype.kind not in "iu":
        raise ValueError(
            f"users must be {length} whole numbers, got {named.dtype} {list(named.shape)}."
        )
    known, group = np.unique(named, return_inverse=True)
    return known.astype(np.int64), group


def _losses(clicked: npt.NDArray[np.bool_], probabilities: Floats) -> Floats:
    outside = (probabilities < 0) | (probabilities > 1)
    if outside.any():
        raise ValueError(
            f"the probability of impression {int(outside.argmax())} is "
            f"{probabilities[outside][0]:g}, not in 0..1. Give probabilities, not logits."
        )
    given = np.where(clicked, probabilities, 1 - probabilities)
    return -np.log(np.clip(given, SMALLEST, 1))


def _group_aucs(
    clicked: npt.NDArray[np.bool_], scores: Floats, group: npt.NDArray, groups: int
) -> Floats:
    """AUC within each group, float64 ``[groups]``, by the sum of ranks; NaN without both labels.

    Equal scores share the mean of their ranks (Mann and Whitney, 1947).
    """
    order = np.lexsort((scores, group))
    of_group, values = group[order], scores[order]
    # A run is a stretch of equal scores of one group.
    begins = np.flatnonzero(
        np.append(True, (of_group[1:] != of_group[:-1]) | (values[1:] != values[:-1]))
    )
    lengths = np.diff(np.append(begins, len(order)))
    count = np.bincount(group, minlength=groups)
    before = np.cumsum(count) - count  # impressions of earlier groups
    middle = np.repeat(begins + (lengths + 1) / 2, lengths)
    rank = middle - before[of_group]
    positives = np.bincount(group, weights=clicked, minlength=groups)
    summed = np.bincount(of_group, weights=rank * clicked[order], minlength=groups)
    pairs = positives * (count - positives)
    above = summed - positives * (positives + 1) / 2
    return np.divide(above, pairs, out=np.full(groups, np.nan), where=pairs > 0)


class _Pairs(NamedTuple):
    """What AUC counts, sorted once, so that users can be drawn again in the time of a few sums."""

    clicks: npt.NDArray[np.int64]  # [P], the users of clicks
    others: npt.NDArray[np.int64]  # [N], the users of impressions without one, by their scores
    below: npt.NDArray[np.int64]  # [P], how many of the others score less than each click
    upto: npt.NDArray[np.int64]  # [P], how many score no more

    @classmethod
    def of(cls, clicked: npt.NDArray[np.bool_], scores: Floats, group: npt.NDArray) -> _Pairs:
        """Those of impressions ``[n]``."""
        order = np.argsort(scores, kind="stable")
        mark, values, users = clicked[order], scores[order], group[order]
        high, low = values[mark], values[~mark]
        sides = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
        return cls(users[mark], users[~mark], *sides)

    def auc(self, times: npt.NDArray[np.int64]) -> float:
        """AUC with every user counted ``times`` ``[U]``; NaN without both labels."""
        clicks = times[self.clicks]
        before = np.append(0, np.cumsum(times[self.others]))  # [N + 1]
        pairs = clicks.sum() * before[-1]
        above = clicks @ (before[self.below] + before[self.upto]) / 2  # a tie counts half
        return above / pairs if pairs else math.nan
