"""The page about codes: the numbers of the figures, alone in the world, and safe to open."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.codes.tokenizer import FitContext, find
from foretaste.errors import InputError
from foretaste.reporting.codes import render, write_code_report

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>"\'&</title></svg></style>'


def figures(name: str, seed: int = 0, *, seeds: int = 1) -> dict[str, Any]:
    """What codes fit measures, of real codes."""
    vectors = np.random.default_rng(seed).standard_normal((90, 6)).astype(np.float32)
    tokenizers = [find("rqkmeans")(levels=2, size=16) for _ in range(1 + seeds)]
    for number, tokenizer in enumerate(tokenizers):
        tokenizer.fit(vectors, context=FitContext(number, "cpu"))
    others = [one.codes.nearest for one in tokenizers[1:] if one.codes is not None]
    return {
        "name": name,
        "data": "books",
        "notes": ["a note of its own"],
        "seed": 0,
        "seconds": 1.5,
        "learning_seconds": 1.0,
        "sources": "text by tfidf",
        "report": tokenizers[0].report(vectors, others=others).to_json(),
        "fingerprint": "f",
        "versions": {"python": "3.11"},
        "machine": {"cpu": "a processor", "cores": 2, "system": "Linux"},
    }


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    return tags


def test_every_figure_is_drawn_and_told() -> None:
    one, other = figures("first"), figures("second", seed=1, seeds=0)
    page = render([one, other])
    parsed(page)
    for given in (one, other):
        report = given["report"]
        for level in report["levels"]:
            assert f"{level['perplexity']:.1f} of 16" in page
        assert f"{report['neighbours']['overlap']:.1%}".replace("%", " %") in page
        moved = report["collisions"]["moved"]
        assert f"{moved:,} moved, 0 share codes now" in page
        for finding in report["findings"]:
            assert finding in page
    assert page.count('<svg class="chart') >= 7
    assert page.count("<desc>") == page.count('<svg class="chart')
    for section in ("use", "collisions", "neighbours", "costs"):
        text = re.search(rf'<section id="{section}">(.*?)</section>', page, flags=re.DOTALL)
        assert text and "first" in text[1] and "second" in text[1]
    assert "a note of its own" in page
    # 0.5 s for 90 items is 5,556 s for a million.
    assert "0.50 s; for a million at this pace: 1 h 32 min" in page


def test_without_another_seed_the_page_says_so() -> None:
    assert "No other seed was tried" in render([figures("one", seeds=0)])


def test_nothing_is_fetched_and_hostile_names_are_inert() -> None:
    given = figures(HOSTILE)
    given |= {"data": HOSTILE, "sources": HOSTILE, "notes": [HOSTILE], "versions": {HOSTILE: "1"}}
    page = render([given])
    tags = parsed(page)
    assert [tag for tag, _ in tags.seen].count("script") == 1
    assert not {"img", "iframe"} & {tag for tag, _ in tags.seen}
    assert not any(name.startswith("on") for _, attrs in tags.seen for name in attrs)
    for _, attrs in tags.seen:
        for name in ("src", "href", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    assert "default-src 'none'" in page


def test_links_lead_somewhere() -> None:
    tags = parsed(render([figures("one")]))
    ids = [attrs["id"] for _, attrs in tags.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for tag, attrs in tags.seen if tag == "a"}
    assert links <= {f"#{one}" for one in ids}


def test_files(tmp_path: Path) -> None:
    path = write_code_report([figures("one")], tmp_path / "deep" / "page.html")
    assert path.read_text().lstrip().startswith("<!doctype html>")
    with pytest.raises(InputError, match="no folder given"):
        write_code_report([], tmp_path / "page.html")
    with pytest.raises(InputError, match="is a folder"):
        write_code_report([figures("one")], tmp_path)
