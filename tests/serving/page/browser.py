"""The page in a real browser: what a person sees and does, and what must never happen meanwhile."""

from __future__ import annotations

import shutil
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, expect

SECONDS = 20_000  # milliseconds, for machines that are busy with other tests
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
expect.set_options(timeout=SECONDS)


def launch(playwright: Playwright) -> Browser:
    """The system's Chromium, without a window."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise FileNotFoundError(
            "chromium is not installed, and the tests of the page need a real browser. "
            "Install the Debian package chromium: apt-get install chromium"
        )
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


class Visit:
    """A person with the page open, in a browser that has never seen it before."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        """``options`` are those of a browser context, such as ``viewport``."""
        self.url = url
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(SECONDS)
        self.errors: list[str] = []
        self.asked: list[Request] = []
        self.context.on("request", self._note)
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page = self.open()

    def _note(self, request: Request) -> None:
        self.asked.append(request)

    def _hear(self, message: ConsoleMessage) -> None:
        # What the service refused is told to the person; the browser notes it as well.
        if message.type in ("error", "warning") and "Failed to load" not in message.text:
            self.errors.append(message.text)

    def open(self) -> Page:
        """A tab with the page."""
        page = self.context.new_page()
        page.goto(self.url)
        return page

    def close(self) -> None:
        """The end: nothing went elsewhere, nothing was blocked, nothing failed unseen."""
        self.context.close()
        assert [one.url for one in self.asked if not one.url.startswith(self.url)] == []
        assert self.errors == []

    def settled(self) -> Visit:
        """Wait until every list is there."""
        expect(self.page.locator("#next:not([aria-busy]) .card").first).to_be_attached()
        return self

    def type(self, text: str) -> None:
        """Search, and wait for what is found."""
        self.page.get_by_role("combobox", name="Search titles").fill(text)
        expect(self.page.get_by_role("listbox")).to_be_visible()

    def like(self, text: str) -> None:
        """Search and take the first title."""
        self.type(text)
        self.page.keyboard.press("ArrowDown")
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_role("listbox")).to_be_hidden()
        self.settled()

    def become_user(self) -> None:
        """Have the clicks kept."""
        self.page.get_by_role("radio", name="As a user").check()
        self.settled()

    def lists(self) -> dict[str, list[str]]:
        """The titles of every list by the name of its run."""
        return self.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll(".card")].map((card) => [
              card.querySelector("h3").textContent,
              [...card.querySelectorAll(".row .title")].map((title) => title.textContent),
            ]))"""
        )

    def liked(self) -> list[str]:
        """The titles on the chips."""
        return self.page.locator("#liked .title").all_text_contents()

    def card(self, run: str):
        """The card of a run."""
        return self.page.get_by_role("article", name=run, exact=True)

    def tile(self, run: str, term: str) -> str:
        """A figure of a card."""
        tile = self.card(run).locator(".tiles div").filter(has_text=term)
        return tile.locator("dd").inner_text()

    def bodies(self, path: str) -> list[Any]:
        """What was posted to a path."""
        return [
            one.post_data_json
            for one in self.asked
            if one.method == "POST" and one.url.endswith(path)
        ]


def names(answer: dict[str, Any]) -> list[str]:
    """The titles of an answer as the page shows them."""
    return [item["title"].strip() or item["item_id"] for item in answer["items"]]


def accessible(page: Page) -> None:
    """What can be checked of WCAG by a program, by axe-core."""
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
