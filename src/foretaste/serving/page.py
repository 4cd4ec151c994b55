"""The page at ``/``: files that are read once, under a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
INLINE = re.compile(r"<(script|style)(?:\s[^>]*)?>(.*?)</\1>", re.DOTALL | re.IGNORECASE)


class PageFile(NamedTuple):
    """A file of the page as it is sent."""

    content: bytes
    headers: dict[str, str]


def read_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """The files of the page by name, ``index.html`` first among them; empty without one."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    policy = policy_of(index.read_text(encoding="utf-8"))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: PageFile(path.read_bytes(), _headers(path, policy)) for path in files}


def policy_of(html: str) -> str:
    """A Content-Security-Policy: own files, and the inline scripts and styles of ``html`` alone.

    What is inline is named by its hash, so text that finds its way into the page never runs.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in INLINE.findall(html):
        if content.strip():
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            hashes[kind.lower()].append(f"'sha256-{digest}'")
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self'", *hashes["script"]]),
            " ".join(["style-src 'self'", *hashes["style"]]),
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _headers(path: Path, policy: str) -> dict[str, str]:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind in ("application/json", "image/svg+xml")
    return {
        "content-type": f"{kind}; charset=utf-8" if text else kind,
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
    }
