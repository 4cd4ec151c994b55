"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from foretaste.reporting import wording


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.421, "0.42 s"), (12.3, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "–")],
)
def test_duration(seconds: float | None, said: str) -> None:
    assert wording.duration(seconds) == said


def test_numbers() -> None:
    assert wording.size(1_400_000_000) == "1.4 GB"
    assert wording.share(0.1234) == "12.3 %"
    assert wording.whole(1234567) == "1,234,567"
    assert wording.figure(0.5, "novelty@10") == "0.50"
    assert wording.figure(0.5, "ndcg@10") == "0.5000"
    assert wording.figure(math.nan) == wording.NOTHING
    assert wording.p_value(0.0002) == "< 0.001"
    assert wording.p_value(0.049) == "= 0.049"
    assert wording.signed(-0.5) == f"{wording.MINUS}0.5000"


def test_words() -> None:
    assert wording.metric_title("hr@10") == "Hit rate@10"
    assert wording.metric_title("my_own@5") == "my_own@5"
    assert wording.listing(["a", "b", "c"]) == "a, b and c"
    assert wording.listing(["a"]) == "a"
    assert wording.listing([]) == ""
    assert wording.day(1_362_009_600_000) == "28 February 2013"
    assert wording.day(1e20) == wording.NOTHING
