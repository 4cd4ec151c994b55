"""Numbers from ranks: accuracy, what lists do beyond it, how sure a mean is, and for whom."""

from foretaste.metrics.beyond import ListMetrics, gini
from foretaste.metrics.intervals import (
    Interval,
    PairedDifference,
    bootstrap_mean,
    holm,
    paired_difference,
)
from foretaste.metrics.positions import TargetPositions, target_positions
from foretaste.metrics.ranking import RANKING_METRICS, RankingMetric, parse_metric, query_metrics
from foretaste.metrics.slices import head_items, item_slices, user_slices

__all__ = [
    "RANKING_METRICS",
    "Interval",
    "ListMetrics",
    "PairedDifference",
    "RankingMetric",
    "TargetPositions",
    "bootstrap_mean",
    "gini",
    "head_items",
    "holm",
    "item_slices",
    "paired_difference",
    "parse_metric",
    "query_metrics",
    "target_positions",
    "user_slices",
]
