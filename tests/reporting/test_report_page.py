"""The page as a file: well-formed, alone in the world, and safe to open."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from foretaste.reporting import write_report
from foretaste.reporting.palette import SERIES, contrast

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>"\'&</title></svg></style>'

MakeRun = Callable[..., Path]


class _Tags(HTMLParser):
    """Counts open tags; what is left open or closed twice is a mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()


def _parse(text: str) -> _Tags:
    tags = _Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return tags


@pytest.fixture
def page(three_runs: list[Path], tmp_path: Path) -> str:
    """The report on three runs."""
    return write_report(three_runs, tmp_path / "report.html").read_text(encoding="utf-8")


def test_tags_are_balanced_and_ids_unique(page: str) -> None:
    tags = _parse(page)
    ids = [attrs["id"] for _, attrs in tags.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in tags.seen if tag == "a"]
    assert {link for link in links if link} <= {f"#{one}" for one in ids}
    assert page.lstrip().lower().startswith("<!doctype html>")


def test_nothing_is_fetched(page: str) -> None:
    tags = _parse(page)
    for _, attrs in tags.seen:
        for name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
    assert "url(" not in page and "@import" not in page and "@font-face" not in page
    assert not {"iframe", "object", "embed", "img"} & {tag for tag, _ in tags.seen}
    assert "default-src 'none'" in page


def test_every_chart_is_an_image_with_a_name_and_a_description(page: str) -> None:
    charts = re.findall(r'<svg class="chart.*?<g', page, flags=re.DOTALL)
    assert len(charts) >= 8
    for chart in re.findall(r'<svg class="chart[^>]*>.{0,60}', page, flags=re.DOTALL):
        assert 'role="img"' in chart and "aria-label=" in chart and "<title>" in chart
    assert page.count("<desc>") == page.count('<svg class="chart')


def test_contains_every_run_everywhere(page: str) -> None:
    for section in ("comparison", "slices", "popularity", "lists", "learning", "costs", "repeat"):
        text = re.search(rf'<section id="{section}">(.*?)</section>', page, flags=re.DOTALL)
        assert text, section
        assert all(name in text[1] for name in ("popularity", "ease", "sasrec")), section


def test_hostile_titles_are_inert(make_run: MakeRun, tmp_path: Path) -> None:
    record = {
        "command": HOSTILE,
        "leakage": {
            "checks": [HOSTILE],
            "findings": [{"name": HOSTILE, "severity": "leak", "count": 1, "message": HOSTILE}],
        },
    }
    runs = [make_run("ease", title=HOSTILE, record=record, name="a <b>&"), make_run("sasrec")]
    data = {
        "name": HOSTILE,
        "fingerprint": "f",
        "history_lengths": {HOSTILE: 3},
        "notes": [HOSTILE],
    }
    data["events_by_period"] = [[HOSTILE, 3]]
    for run in runs:
        _edit(run, "data", data)
    page = write_report(runs, tmp_path / "r.html", title=HOSTILE).read_text(encoding="utf-8")
    tags = _parse(page)
    assert [tag for tag, _ in tags.seen].count("script") == 1
    assert "img" not in {tag for tag, _ in tags.seen}
    assert not any(name.startswith("on") for _, attrs in tags.seen for name in attrs)
    assert html.escape("<script>alert(") in page


def test_the_script_is_the_one_that_the_policy_allows(page: str) -> None:
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(page)
    assert "localStorage" not in page and "cookie" not in page


def test_colours_stand_out_from_the_page() -> None:
    for light, dark in SERIES:
        assert contrast(light, "#ffffff") >= 3 and contrast(light, "#f6f7f9") >= 3, light
        assert contrast(dark, "#14171c") >= 3 and contrast(dark, "#1c2027") >= 3, dark


def _edit(run: Path, section: str, values: dict) -> None:
    import json

    record = json.loads((run / "run.json").read_text())
    record[section] = values
    (run / "run.json").write_text(json.dumps(record))
