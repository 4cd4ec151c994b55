"""What is shown is what is in the data, on whatever stdout there is."""

from __future__ import annotations

import io
import json
import sys

import pytest

from foretaste.cli.display import print_json, print_table, say
from foretaste.cli.figures import print_evaluation

TITLE = "Am\xe9lie \N{BLACK HEART SUIT} :heart: song [b]x[/b] \ud800"


def written(monkeypatch, encoding: str, show) -> str:
    """What ``show`` writes on a stdout of this encoding."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "30")  # narrow enough for an ellipsis
    show()
    out.flush()
    return out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_title_that_stdout_cannot_write_is_escaped(monkeypatch, encoding):
    shown = written(monkeypatch, encoding, lambda: say(TITLE))
    assert ("\\xe9" in shown) == (encoding == "ascii")
    assert ":heart: song [b]x[/b]" in shown
    rows = [[TITLE, "unbreakable" * 9]]
    assert written(monkeypatch, encoding, lambda: print_table("t", ["a", "b"], rows))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json(monkeypatch, encoding):
    shown = written(monkeypatch, encoding, lambda: print_json({"title": TITLE}))
    assert json.loads(shown) == {"title": TITLE}


def test_a_title_is_no_picture(monkeypatch):
    rows = [[":heart: song [red]x[/red]"]]
    shown = written(monkeypatch, "utf-8", lambda: print_table("", ["title"], rows))
    assert ":heart: song [red]x[/red]" in shown


def test_an_evaluation_without_metrics_shows_the_lists(capsys):
    users = {"cold": {"users": 3, "metrics": {}}, "1-4": {"users": 0, "metrics": {}}}
    summary = {
        "model": "popularity", "split": "global-time", "part": "test", "users": 3,
        "exclude": "seen", "metrics": {"novelty@10": {"value": 2.0, "low": 1.0, "high": 3.0}},
        "lists": {"coverage@10": 0.5}, "slices": {"users": users, "items": {}},
    }  # fmt: skip
    print_evaluation(summary)
    shown = capsys.readouterr().out
    assert "novelty@10" in shown and "coverage@10" in shown
