"""The metrics in words, for readers who do not measure recommenders every day."""

from __future__ import annotations

from collections.abc import Sequence

from foretaste.reporting.runs import ReportedRun
from foretaste.reporting.tables import Fact
from foretaste.reporting.wording import metric_kind, metric_title

TERMS = {
    "ndcg": "How near the top of the list the items are that came next: 1 when all are at the "
    "very top, 0 when none is in the list.",
    "hr": "The share of users for whom at least one item that came next is in the list.",
    "recall": "Of the items that came next, the share that is in the list.",
    "precision": "Of the items in the list, the share that came next.",
    "mrr": "One divided by the place of the first right item: 1 at the top, 0.5 in second place, "
    "0 when it is not in the list.",
    "map": "The share of right items down to each right one, averaged: rewards lists whose right "
    "items are all near the top.",
    "novelty": "How surprising the listed items are, in bits: one bit more for every halving of an "
    "item's popularity.",
    "ild": "How unlike each other the items of a list are, by their categories: 0 all alike, 1 "
    "nothing in common.",
    "coverage": "The share of the catalog that is in at least one list.",
    "gini": "How unevenly items get places in lists: 0 all equally often, near 1 a few get all.",
    "popularity_lift": "The popularity of what is shown over the popularity of what people choose.",
    "auc": "The chance that what was chosen is judged higher than what was not, whoever was asked: "
    "0.5 is guessing.",
    "gauc": "AUC within each user, averaged with each user's impressions as weight.",
    "log_loss": "How wrong the stated probabilities are, in nats: 0 when each is sure and right. "
    "Less is better.",
    "user_auc": "AUC within each user, averaged over users who chose some of what they were shown "
    "and left some.",
    "head_share": "The share of places in lists held by the most chosen fifth of the catalog.",
}
GENERAL = (
    Fact("@10", "Counted in the first ten places of the list."),
    Fact(
        "95 % interval",
        "Made so that 95 of 100 such ranges hold the mean over all users of this kind.",
    ),
    Fact(
        "p (Holm)",
        "How often chance alone gives a difference at least this large, made stricter for every "
        "pair that is tested. Below 0.05 we call it more than chance.",
    ),
)


def glossary(runs: Sequence[ReportedRun], part: str) -> tuple[Fact, ...]:
    """The metrics of this report, then the general terms."""
    names = [
        name for run in runs for kind in ("metrics", "lists") for name in run.figures(part, kind)
    ]
    used = dict.fromkeys(metric_kind(name) for name in names)
    return (*(Fact(metric_title(kind), TERMS[kind]) for kind in used if kind in TERMS), *GENERAL)
