"""Numbers from ranks and clicks: accuracy, what lists do beyond it, how sure, and for whom."""

from foretaste.metrics.beyond import ListMetrics, gini
from foretaste.metrics.clicks import (
    ClickFigures,
    ClickIntervals,
    GroupedAUC,
    UserClicks,
    auc,
    auc_difference,
    click_figures,
    click_intervals,
    gauc,
    log_loss,
    user_clicks,
)
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
    "ClickFigures",
    "ClickIntervals",
    "GroupedAUC",
    "Interval",
    "ListMetrics",
    "PairedDifference",
    "RankingMetric",
    "TargetPositions",
    "UserClicks",
    "auc",
    "auc_difference",
    "bootstrap_mean",
    "click_figures",
    "click_intervals",
    "gauc",
    "gini",
    "head_items",
    "holm",
    "item_slices",
    "log_loss",
    "paired_difference",
    "parse_metric",
    "query_metrics",
    "target_positions",
    "user_clicks",
    "user_slices",
]
