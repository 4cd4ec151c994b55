"""What a person does on the page, by mouse and by keyboard."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, expect

from foretaste.serving.models import FILES

from ..conftest import MakeRun
from ..server_process import Server
from .browser import Visit, names
from .conftest import Visiting


def test_the_first_view_is_not_empty(visit: Visiting, server: Server):
    person = visit()
    popular = names(server.recommend(k=10))
    assert person.lists() == {"sasrec": popular, "popularity": popular}
    for run in ("sasrec", "popularity"):
        assert person.tile(run, "Source") == "fallback"
        assert person.tile(run, "Kept of you") == "nothing"
        assert re.fullmatch(r"\d+(\.\d+)? ms", person.tile(run, "Answered in"))
    expect(person.page.locator("#summary")).to_have_text("10 titles in both lists")
    offered = person.page.locator("#suggestions .title").all_text_contents()
    assert len(set(offered)) == 6
    person.page.get_by_role("button", name="Other titles").click()
    others = person.page.locator("#suggestions .title").all_text_contents()
    assert others and not set(others) & set(offered)
    person.page.locator("#suggestions button").first.click()
    assert person.settled().liked() == others[:1]


def test_a_mistyped_title_is_found_and_picked_by_keyboard(visit: Visiting, server: Server):
    person = visit()
    page, before = person.page, person.lists()
    box = page.get_by_role("combobox", name="Search titles")
    assert box.get_attribute("aria-expanded") == "false"
    person.type("intersteler")
    assert box.get_attribute("aria-expanded") == "true"
    first = page.get_by_role("option").first
    assert first.get_attribute("aria-selected") == "false"
    page.keyboard.press("ArrowDown")
    assert first.get_attribute("aria-selected") == "true"
    assert box.get_attribute("aria-activedescendant") == first.get_attribute("id")
    page.keyboard.press("Enter")
    expect(page.locator("#liked .title")).to_have_text(["Interstellar (1989)"])
    expect(box).to_have_value("")
    expect(box).to_be_focused()
    person.settled()
    for run, shown in person.lists().items():
        assert shown != before[run]
        assert shown == names(server.recommend(history=["f09"], run=run, k=10))
        assert person.tile(run, "Source") == "history"
    expect(page.get_by_role("status")).to_contain_text("Interstellar (1989) added")
    assert person.bodies("/v1/events") == []


def test_keys_of_the_search_box(visit: Visiting):
    person = visit()
    page = person.page
    person.type("a")
    options = page.get_by_role("option")
    selected = page.locator("#found [aria-selected=true]")
    count = options.count()
    assert count > 2
    page.keyboard.press("ArrowUp")
    expect(selected).to_have_id(f"found-{count - 1}")
    page.keyboard.press("ArrowDown")
    expect(selected).to_have_id("found-0")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_role("combobox")).to_have_value("")
    # Whoever presses Enter before the list has come gets its first title.
    page.get_by_role("combobox").fill("ratatuille")
    page.keyboard.press("Enter")
    expect(page.locator("#liked .title")).to_have_text(["Ratatouille (1992)"])
    page.get_by_role("combobox").fill("xqxqxqxq")
    expect(page.locator("#search-says")).to_have_text("No title is like “xqxqxqxq”.")
    person.type("ratatouille")
    expect(options.first).to_contain_text("liked already")


def test_clicks_chips_and_why(visit: Visiting, server: Server):
    person = visit()
    page, popular = person.page, person.lists()
    person.like("alien")
    expect(person.card("sasrec").locator(".why")).to_contain_text("Like a second one")
    person.like("arrival")
    row = person.card("sasrec").locator(".row").nth(2)
    clicked = row.locator(".title").inner_text()
    row.click()
    person.settled()
    assert person.liked()[:2] == ["Alien (1984)", "Arrival (1985)"]
    assert person.liked()[2].strip() == clicked.strip()
    assert all(clicked not in shown for shown in person.lists().values())

    ids = person.bodies("/v1/recommendations")[-1]["history"]
    for run in ("sasrec", "popularity"):
        answer = server.recommend(history=ids, run=run, k=10, explain=True)
        assert person.lists()[run] == names(answer)
        if run == "sasrec":
            reasons = [one["title"].strip() or one["item_id"] for one in answer["because"]]
            why = person.card(run).locator(".why")
            assert why.locator("li .title").all_text_contents() == reasons
            words = why.locator(".weight").all_text_contents()
            assert "the most" in words or "against it" in words
            widths = why.locator(".fill").evaluate_all(
                "(all) => all.map((one) => one.getBoundingClientRect().width)"
            )
            falls = [abs(one["fall"]) for one in answer["because"]]
            np.testing.assert_allclose(
                widths, 80 * np.maximum(np.array(falls) / max(falls), 0.02), atol=1
            )
    expect(person.card("popularity").locator(".why")).to_contain_text("None of your titles")

    for title in (clicked, "Arrival (1985)", "Alien (1984)"):
        page.locator("#liked").get_by_role("button").filter(has_text=title).click()
        person.settled()
    assert person.liked() == []
    assert person.lists() == popular
    assert page.locator(".why li").count() == 0


def test_focus_is_never_lost(visit: Visiting):
    person = visit()
    page = person.page
    focused = "document.activeElement.closest('#liked, #cards, #suggestions, h2')?.id"
    for place in (0, 1, 2):
        page.locator("#suggestions button").nth(place).press("Enter")
        person.settled()
        # After the third there is start enough, and nothing is suggested any more.
        assert page.evaluate(focused) == ("suggestions" if place < 2 else "liked-title")
    page.locator("#liked button").nth(1).press("Enter")
    person.settled()
    assert page.evaluate(focused) == "liked"
    row = person.card("popularity").locator(".row").nth(4)
    row.press("Enter")
    person.settled()
    expect(row).to_be_focused()


def test_what_a_user_has_kept_and_forgotten(visit: Visiting, server: Server):
    person = visit()
    page = person.page
    state = next(run for run in server.client.get("/v1/runs").json()["runs"] if run["incremental"])
    person.like("alien")
    assert person.bodies("/v1/events") == []
    person.become_user()
    assert person.liked() == []
    page.get_by_role("button", name="Take along the 1 title you tried").click()
    person.settled()
    person.like("gravity")
    person.like("moon")
    user = person.bodies("/v1/events")[0][0]["user_id"]
    assert re.fullmatch("page-[0-9a-f]{32}", user)

    def told(run: str = "sasrec") -> dict:
        return server.recommend(user_id=user, run=run, k=10)

    for run in ("sasrec", "popularity"):
        assert person.lists()[run] == names(told(run))
    assert told()["logged"] == 3
    deadline = time.monotonic() + 20
    while told()["state_bytes"] != 3 * state["record_bytes"]:  # written behind the answers
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)
    page.reload()
    person.settled()
    kept = f"{3 * state['record_bytes']:,} bytes"
    assert person.tile("sasrec", "Kept of you") == kept
    assert person.tile("sasrec", "Source") == "state"
    assert person.tile("popularity", "Kept of you") == "nothing"
    expect(page.locator("#kept-sum")).to_have_text(f"3 events and {kept}")

    # One title is taken back: the log holds the two others, in their order.
    page.get_by_role("button", name="Gravity (1986) – remove").click()
    person.settled()
    assert told()["logged"] == 2
    left = server.recommend(history=["f04", "f07"], run="sasrec", k=10)
    assert names(told()) == names(left) == person.lists()["sasrec"]

    page.reload()
    person.settled()
    assert person.liked() == ["Alien (1984)", "Moon (1987)"]
    other = person.open()
    expect(other.locator("#liked .title")).to_have_count(2)

    page.get_by_role("button", name="Forget me").click()
    expect(page.locator("#kept-says")).to_have_text(
        "You are forgotten, in the service and in this browser."
    )
    assert told()["source"] == "fallback"
    assert server.client.delete(f"/v1/users/{user}").json() == {"forgotten": False}
    assert page.evaluate("localStorage.length") == 0
    assert person.liked() == []
    expect(page.get_by_role("radio", name="Just trying")).to_be_checked()
    expect(other.get_by_role("radio", name="Just trying")).to_be_checked()  # the other tab knows


def test_what_is_told_of_a_run_is_that_of_the_newer_one(
    browser: Browser, runs: list[Path], write_run: MakeRun, tmp_path: Path
):
    """Its records have another size, and its catalog other titles; the page stays open."""
    served = tmp_path / "films"
    shutil.copytree(runs[0], served)
    newer = write_run(tmp_path / "newer", "sasrec", dim=32)
    options = ["--store", f"lmdb:{tmp_path / 'store'}", "--set", "serve.watch_seconds=0.1"]
    with Server([served], *options, log=tmp_path / "log") as server:

        def told() -> dict[str, Any]:
            return server.client.get("/v1/runs").json()["runs"][0]

        def expect_told(run: dict[str, Any]) -> None:
            kept = f"{run['record_bytes']} bytes for each of the last {run['window']} titles"
            expect(person.page.locator("#kept-facts")).to_contain_text(kept)
            expect(person.card("films")).to_contain_text(f"{run['items']} titles")

        before = told()
        person = Visit(browser, server.url).settled()
        person.become_user()
        person.like("alien")
        expect_told(before)
        for name in FILES:
            shutil.copy(newer / name, served / f"{name}.partial")
            (served / f"{name}.partial").replace(served / name)
        deadline = time.monotonic() + 20
        while (after := told())["fingerprint"] == before["fingerprint"]:
            assert time.monotonic() < deadline
            person.page.wait_for_timeout(20)
        assert before["record_bytes"] != after["record_bytes"]
        assert before["items"] != after["items"]
        person.like("number 3")
        expect_told(after)
        asked = len([one for one in person.asked if one.url.endswith("/v1/runs")])
        person.like("number 4")
        again = len([one for one in person.asked if one.url.endswith("/v1/runs")])
        assert (asked, again) == (2, 2)  # when it is needed alone
        person.close()
