"""Numbers, dates and metric names as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

NOTHING = "–"  # stands in tables for what does not exist
MINUS = "−"  # as wide as the plus sign

_TITLES = {
    "ndcg": "NDCG",
    "hr": "Hit rate",
    "recall": "Recall",
    "precision": "Precision",
    "mrr": "MRR",
    "map": "MAP",
    "novelty": "Novelty",
    "ild": "Diversity",
    "coverage": "Coverage",
    "gini": "Gini",
    "popularity_lift": "Popularity lift",
    "head_share": "Head share",
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "Log-loss",
    "user_auc": "AUC of a user",
}
_UNBOUNDED = {"novelty", "popularity_lift"}


def metric_kind(name: str) -> str:
    """``"ndcg@10"`` is of the kind ``"ndcg"``."""
    return name.partition("@")[0]


def metric_title(name: str) -> str:
    """``"hr@10"`` as ``"Hit rate@10"``; a name that is not ours stays as it is."""
    kind, at, k = name.partition("@")
    return _TITLES.get(kind, kind) + at + k


def figure(value: float | None, name: str = "") -> str:
    """A metric's value: four decimals for what lies in 0..1, two for bits and ratios."""
    if not known(value):
        return NOTHING
    return f"{value:.2f}" if metric_kind(name) in _UNBOUNDED else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference with its sign: ``+0.0120``, or with the true minus sign."""
    return f"{'+' if value >= 0 else MINUS}{abs(value):.4f}"


def span(low: float | None, high: float | None, name: str = "") -> str:
    """An interval: ``0.1260-0.1383``, with an en dash; nothing when there is none."""
    return f"{figure(low, name)}{NOTHING}{figure(high, name)}" if known(low) and known(high) else ""


def signed_span(low: float, high: float) -> str:
    """An interval of a difference, each end with its sign; nothing when there is none."""
    return f"{signed(low)} to {signed(high)}" if known(low) and known(high) else ""


def known(value: float | None) -> bool:
    """False for what was not measured: None, NaN and infinity."""
    return value is not None and math.isfinite(value)


def whole(value: float | None) -> str:
    """A count with thousands: ``1,234,567``."""
    return f"{int(value):,}" if value is not None and known(value) else NOTHING


def share(value: float | None) -> str:
    """A share as a percentage: ``12.3 %``."""
    return f"{100 * value:.1f} %" if value is not None and known(value) else NOTHING


def p_value(value: float) -> str:
    """A p-value with its sign: ``= 0.012`` or ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def duration(seconds: float | None) -> str:
    """``0.42 s``, ``12 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds is None or not known(seconds):
        return NOTHING
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float | None) -> str:
    """Bytes in powers of a thousand: ``1.4 GB``."""
    if count is None or not known(count):
        return NOTHING
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def day(milliseconds: float | None) -> str:
    """The day of a moment since 1970: ``28 February 2013``."""
    if milliseconds is None or not known(milliseconds):
        return NOTHING
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return NOTHING
    return f"{moment.day} {moment:%B %Y}"


def listing(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([*([", ".join(words[:-1])] if words[:-1] else []), *words[-1:]])
