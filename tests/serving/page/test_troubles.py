"""What goes wrong: hostile titles, lost answers, a busy service, a lost store."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Route, expect

from ..server_process import Server
from ..stores.redis_server import RedisServer
from .browser import Visit, accessible, names
from .conftest import HOSTILE, Visiting


def test_titles_from_untrusted_catalogs_are_text(visit: Visiting, server: Server):
    person = visit()
    for row in HOSTILE.values():
        shown = row.strip() or "empty"
        if shown not in person.lists()["popularity"]:
            continue
        person.card("popularity").locator(".row").filter(has_text=shown).first.click()
        person.settled()
    assert len(person.liked()) == len(HOSTILE)
    person.type("<img src=x onerror=")
    page = person.page
    assert page.locator("#found, #cards, #liked").locator("img, script, b, svg").count() == 0
    assert page.evaluate("window.pwned") is None
    assert {one.strip() or "empty" for one in HOSTILE.values()} == set(person.liked())
    # What a person may paste into a shell says the same, and nothing else.
    command = page.locator("#curl").text_content() or ""
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:2] == ["curl", f"{server.url}/v1/recommendations"]
    asked = json.loads(words[words.index("-d") + 1])
    assert {event["item_id"] for event in asked["history"]} == set(HOSTILE)
    assert len(words) == 6


def test_a_click_is_written_once_whatever_the_answer(visit: Visiting, server: Server):
    """The service writes an event and its answer is lost: the page puts the log right."""
    person = visit()
    person.become_user()

    def lose(route: Route) -> None:
        route.fetch()
        route.fulfill(status=503, json={"detail": "lost"})

    person.page.route("**/v1/events", lose, times=1)
    person.like("alien")
    notice = person.page.get_by_role("alert")
    expect(notice).to_contain_text("cannot answer right now: lost")
    expect(notice).to_contain_text("not in the log yet")
    person.page.get_by_role("button", name="Try again").click()
    expect(notice).to_be_hidden()
    person.like("moon")
    user = person.bodies("/v1/events")[0][0]["user_id"]
    assert server.recommend(user_id=user)["logged"] == 2

    # Somebody else removes the user; the page notices and asks before it writes anything.
    server.client.delete(f"/v1/users/{user}")
    person.like("solaris")
    expect(notice).to_contain_text("does not hold these titles")
    person.page.get_by_role("button", name="Write them again").click()
    expect(notice).to_be_hidden()
    assert server.recommend(user_id=user)["logged"] == 3


def test_a_browser_that_keeps_nothing(visit: Visiting):
    person = visit()
    person.page.evaluate(
        """() => { Storage.prototype.setItem = () => { throw new Error("not allowed"); }; }"""
    )
    person.become_user()
    person.like("alien")
    expect(person.page.locator("#kept-facts")).to_contain_text("it does not let the page")
    assert person.liked() == ["Alien (1984)"]


def test_too_busy_is_said_and_asked_again(visit: Visiting, server: Server):
    person = visit(reduced_motion="reduce")
    busy = {"status": 429, "headers": {"retry-after": "1"}, "json": {"detail": "wait"}}
    path = "**/v1/recommendations"
    person.page.route(path, lambda route: route.fulfill(**busy), times=2)  # each run's first
    person.like("alien")
    notice = person.page.get_by_role("alert")
    expect(notice).to_be_hidden()
    assert person.lists()["sasrec"] == names(server.recommend(history=["f04"], k=10))

    person.page.route(path, lambda route: route.fulfill(**busy))
    person.like("moon")
    expect(notice).to_contain_text("Too many questions are waiting")
    expect(person.card("sasrec")).to_contain_text("This is the list from before.")
    accessible(person.page)
    person.page.unroute(path)
    person.page.get_by_role("button", name="Try again").click()
    expect(notice).to_be_hidden()
    assert person.lists()["sasrec"] == names(server.recommend(history=["f04", "f07"], k=10))


def test_a_token_a_lost_store_and_a_lost_service(browser: Browser, runs, tmp_path: Path):
    token = {"FORETASTE_TOKEN": "let me in"}
    with (
        redis_running(tmp_path) as store,
        Server(runs, "--store", store.url, log=tmp_path / "log", env=token) as server,
    ):
        person = Visit(browser, server.url)
        page = person.page
        field = page.get_by_label("Token")
        expect(field).to_be_focused()
        accessible(page)
        field.fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#token-says")).to_have_text("The service did not take this token.")
        field.fill("let me in")
        field.press("Enter")
        person.settled()
        expect(field).to_be_hidden()
        expect(page.locator("#curl")).to_contain_text("authorization: Bearer $FORETASTE_TOKEN")

        person.become_user()
        person.like("alien")
        notice = page.get_by_role("alert")
        store.kill()
        person.like("moon")
        expect(notice).to_contain_text("not in the log yet")
        expect(person.card("sasrec")).to_contain_text("Made from what this page remembers")
        store.start()  # an empty one: what the page remembers is written again
        expect(notice).to_be_hidden()
        server.client.headers["authorization"] = "Bearer let me in"
        user = person.bodies("/v1/events")[0][0]["user_id"]
        assert server.recommend(user_id=user)["source"] in ("state", "history")
        assert server.recommend(user_id=user)["logged"] == 2

        server.kill()
        page.locator("#liked button").first.click()
        expect(notice).to_contain_text("The service cannot be reached.")
        person.close()


@contextmanager
def redis_running(folder: Path) -> Iterator[RedisServer]:
    store = RedisServer(folder)
    store.start()
    try:
        yield store
    finally:
        store.kill()
