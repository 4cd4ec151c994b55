"""The files of the page: their policy, and that nothing beside them is served."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

import httpx
from fastapi import FastAPI

from foretaste.serving.app import _add_page
from foretaste.serving.page import policy_of, read_page

HTML = """<!doctype html><title>x</title><style>
body { color: red }
</style><script src="/page/app.js"></script><script type="module">go("ü")</script>"""


def named(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_what_is_inline_is_named_by_its_hash():
    policy = dict(part.split(" ", 1) for part in policy_of(HTML).split("; "))
    assert policy["default-src"] == "'none'"
    script, style = named('go("ü")'), named("\nbody { color: red }\n")
    assert policy["script-src"] == f"'self' {script}"
    assert policy["style-src"] == f"'self' {style}"
    assert "http" not in policy_of(HTML) and "unsafe" not in policy_of(HTML)


def test_files_are_read_by_name_and_only_with_an_index(tmp_path):
    assert read_page(tmp_path) == {}
    (tmp_path / "app.js").write_text("1")
    assert read_page(tmp_path) == {}
    (tmp_path / "index.html").write_text(HTML, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    files = read_page(tmp_path)
    assert set(files) == {"index.html", "app.js"}
    assert files["index.html"].headers["content-type"] == "text/html; charset=utf-8"
    assert "javascript" in files["app.js"].headers["content-type"]
    assert files["app.js"].content == b"1"


def test_the_page_is_served_with_its_policy_and_nothing_beside_it(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text(HTML, encoding="utf-8")
    (tmp_path / "page" / "app.js").write_text("1")
    (tmp_path / "secret").write_text("no")
    app = FastAPI()
    _add_page(app, read_page(tmp_path / "page"))

    async def get(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path)

    index = asyncio.run(get("/"))
    assert (index.status_code, index.text) == (200, HTML)
    assert index.headers["content-security-policy"] == policy_of(HTML)
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert asyncio.run(get("/page/app.js")).text == "1"
    for path in ("/page/../../secret", "/page/%2e%2e/secret", "/page/", "/page/index.html"):
        assert asyncio.run(get(path)).status_code == 404


def test_a_button_is_called_by_what_can_be_read_on_it():
    """Whoever speaks to a browser says what stands there (WCAG 2.5.3)."""
    page = read_page()["index.html"].content.decode()
    buttons = re.findall(r'<button [^>]*aria-label="([^"]*)"[^>]*>([^<]+)</button>', page)
    assert len(buttons) >= 2
    for name, text in buttons:
        assert name.startswith(text)
