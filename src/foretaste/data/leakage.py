"""Looking for the future in what a model may learn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from foretaste.data.dataset import Dataset
from foretaste.data.learnt_from import LearntFrom, fingerprint_of
from foretaste.data.sequences import Sequences
from foretaste.data.split import Split


@dataclass(frozen=True)
class Finding:
    """One way in which knowledge of the future reaches the model.

    ``leak`` makes figures wrong; ``warning`` makes them optimistic in a way papers accept.
    """

    name: str
    severity: Literal["leak", "warning"]
    count: int
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.message}"


@dataclass(frozen=True)
class LeakageReport:
    """What ``check_leakage`` looked at and what it found."""

    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """True when nothing was found, not even a warning."""
        return not self.findings

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that make figures wrong."""
        return tuple(finding for finding in self.findings if finding.severity == "leak")

    def __str__(self) -> str:
        if self.clean:
            return f"no leakage found ({len(self.checks)} checks)"
        return "; ".join(str(finding) for finding in self.findings)


def check_leakage(
    split: Split,
    *,
    dataset: Dataset | None = None,
    popularity: np.ndarray | None = None,
    negatives: np.ndarray | None = None,
    codes: Iterable[LearntFrom] | None = None,
) -> LeakageReport:
    """Inspect a split, and what was computed for it, for knowledge of the future.

    Args:
        split: what to inspect.
        dataset: where it came from; without it the protocol-level warnings (k-core over the
            whole log) cannot be given.
        popularity: counts per item ``[items]`` that a model or a metric uses, compared with the
            counts of ``split.train``.
        negatives: items ``[n]`` that a sampled evaluation or training draws from; an item outside
            the vocabulary among them is an item from after the cut.
        codes: what the items' codes were learnt from, besides texts: ``learnt_from`` of a folder
            that ``foretaste codes fit`` wrote.

    Returns:
        A report naming every finding with its count.
    """
    checks = {
        "vocabulary": _vocabulary(split),
        "targets in their own history": _targets_in_history(split),
        "duplicates across the cut": _duplicates_across_cut(split),
        "training after the cut": _training_after_cut(split),
        "history after the cut": _history_after_cut(split),
        "split protocol": _protocol(split, dataset),
    }
    if popularity is not None:
        checks["popularity"] = _popularity(split, popularity)
    if negatives is not None:
        checks["negatives"] = _negatives(split, negatives)
    if codes is not None:
        checks["codes"] = check_codes(split, codes)
    findings = tuple(finding for found in checks.values() for finding in found)
    return LeakageReport(tuple(checks), findings)


def _vocabulary(split: Split) -> list[Finding]:
    only_later = np.flatnonzero(split.popularity == 0)
    if not len(only_later):
        return []
    example = split.catalog.titles[int(only_later[0])]
    message = f'{len(only_later):,} items never occur in train, for example "{example}"'
    return [Finding("vocabulary", "leak", len(only_later), message)]


def _targets_in_history(split: Split) -> list[Finding]:
    count = sum(_overlap(part.histories, part.targets) for part in (split.valid, split.test))
    if not count:
        return []
    message = f"{count:,} targets occur in the history that asks for them"
    return [Finding("target in history", "leak", count, message)]


def _duplicates_across_cut(split: Split) -> list[Finding]:
    """The same user with the same item on both sides: the answer has been trained on."""
    parts = (part for part in (split.valid, split.test) if len(part))
    count = sum(_overlap(split.train.take(part.users), part.targets) for part in parts)
    if not count:
        return []
    message = f"{count:,} user-item pairs are in train and are asked for again"
    return [Finding("duplicates across the cut", "leak", count, message)]


def _training_after_cut(split: Split) -> list[Finding]:
    if split.cuts is None or split.train.times is None or not split.train.events:
        return []
    cut = split.cuts[0] if len(split.valid) else split.cuts[1]
    count = int((split.train.times >= cut).sum())
    if not count:
        return []
    message = f"{count:,} training interactions are not earlier than the cut"
    return [Finding("training after the cut", "leak", count, message)]


def _history_after_cut(split: Split) -> list[Finding]:
    if split.cuts is None:
        return []
    count = 0
    for part, cut in zip((split.valid, split.test), split.cuts, strict=True):
        if part.histories.times is not None:
            count += int((part.histories.times >= cut).sum())
    if not count:
        return []
    message = f"{count:,} interactions in histories are not earlier than the cut"
    return [Finding("history after the cut", "leak", count, message)]


def _protocol(split: Split, dataset: Dataset | None) -> list[Finding]:
    found = []
    if split.kind == "leave-last-out":
        message = "training data of some users is later than test data of others"
        found.append(Finding("leave-last-out", "warning", len(split.test), message))
    return found if dataset is None else found + whole_log_core(dataset)


def whole_log_core(dataset: Dataset) -> list[Finding]:
    """The warning that a k-core has looked at the future."""
    if dataset.k_core <= 1:
        return []
    message = (
        f"the {dataset.k_core}-core was computed on the whole log, so the future chose who "
        "is in it; split.min_item_count counts on train alone"
    )
    return [Finding("k-core before the cut", "warning", dataset.k_core, message)]


def _popularity(split: Split, popularity: np.ndarray) -> list[Finding]:
    expected = split.popularity
    if len(popularity) != len(expected):
        message = f"{len(popularity):,} counts for a vocabulary of {len(expected):,} items"
        return [Finding("popularity", "leak", abs(len(popularity) - len(expected)), message)]
    differing = np.flatnonzero(popularity > expected)
    if not len(differing):
        return []
    item = int(differing[0])
    message = (
        f"{len(differing):,} items are counted more often than they occur in train, for example "
        f'"{split.catalog.titles[item]}" {int(popularity[item])} against {int(expected[item])}'
    )
    return [Finding("popularity", "leak", len(differing), message)]


def _negatives(split: Split, negatives: np.ndarray) -> list[Finding]:
    outside = int(((negatives < 0) | (negatives >= split.items)).sum())
    if not outside:
        return []
    message = f"{outside:,} negatives are not in the training vocabulary"
    return [Finding("negatives", "leak", outside, message)]


def check_codes(split: Split, codes: Iterable[LearntFrom]) -> list[Finding]:
    """What codes know of the answers of a split.

    They know none when they were learnt from its train, or from interactions that all lie before
    what is asked. Others may hold them. Where nothing is recorded, a warning says so.
    """
    found, own = [], ""
    for source in codes:
        if source.fingerprint is None:
            message = (
                f"codes hold {source.what}, and nothing is recorded of what those were learnt "
                "from. If answers were among it, figures are too good; codes that are fitted again "
                "with foretaste codes fit tell"
            )
            found.append(Finding("codes", "warning", 1, message))
            continue
        own = own or fingerprint_of(split.catalog, split.train)
        if source.fingerprint != own and (reason := _not_earlier(split, source)):
            message = f"codes hold {source.what}, learnt from {reason}"
            found.append(Finding("codes", "leak", source.interactions, message))
    return found


def _not_earlier(split: Split, source: LearntFrom) -> str:
    """Why interactions that are not a split's train may hold its answers; else nothing."""
    times, last = split.train.times, source.last_time_ms
    if split.cuts is None or times is None or last is None or last < times.min():
        # What is older than all of train may have no clock at all: positions in place of times.
        return (
            f"{source.interactions:,} interactions that are not the {split.train.events:,} of this "
            "split's train, and nothing shows that its answers are not among them"
        )
    cut = split.cuts[0] if len(split.valid) else split.cuts[1]
    if last < cut:
        return ""
    return f"interactions up to {_day(last)}, and what is asked begins at {_day(cut)}"


def _day(time_ms: int) -> str:
    """A moment as people write it; as a number where no calendar has it."""
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return f"{time_ms:,} ms"


def _overlap(left: Sequences, right: Sequences) -> int:
    """How many events of ``right`` occur in the same row of ``left``; -1 occurs nowhere."""
    if not left.events or not right.events:
        return 0
    width = max(int(left.items.max()), int(right.items.max())) + 2
    pairs = left.rows * width + left.items
    pairs.sort()
    asked = (right.rows * width + right.items)[right.items >= 0]
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    return int((pairs[place] == asked).sum())
