"""How the page looks: on a phone, in the dark, without motion, and to a screen reader."""

from __future__ import annotations

import re

import pytest

from foretaste.reporting.palette import variables
from foretaste.serving.page import FOLDER

from .browser import accessible
from .conftest import Visiting


def test_a_phone(visit: Visiting):
    person = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = person.page
    fits = "document.documentElement.scrollWidth <= 360"
    assert page.evaluate(fits)
    person.become_user()
    person.card("popularity").locator(".row").filter(has_text="UnbrokenUnbroken").tap()
    person.settled()
    person.like("alien")
    page.locator("summary").tap()
    assert page.evaluate(fits)
    person.type("o")
    assert page.evaluate(fits)
    small = page.evaluate(
        """() => [...document.querySelectorAll(
             "button, input, summary, [role=option], .switch label")]
           .filter((one) => one.checkVisibility())
           .map((one) => [one.textContent || one.id, one.getBoundingClientRect()])
           .filter(([, box]) => box.height < 43.99 || box.width < 43.99)
           .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
    )
    assert small == []
    sasrec, popularity = person.card("sasrec"), person.card("popularity")
    above, below = sasrec.bounding_box(), popularity.bounding_box()
    assert above and below and above["y"] + above["height"] <= below["y"]


def test_side_by_side_where_there_is_room(visit: Visiting):
    person = visit(viewport={"width": 1280, "height": 800})
    left = person.card("sasrec").bounding_box()
    right = person.card("popularity").bounding_box()
    assert left and right and left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    assert person.page.evaluate("document.documentElement.scrollWidth <= 1280")


def test_light_and_dark(visit: Visiting):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit(color_scheme="light").page, visit(color_scheme="dark")
    assert light.evaluate(ground) == "rgb(255, 255, 255)"
    assert dark.page.evaluate(ground) == "rgb(20, 23, 28)"
    assert light.screenshot() != dark.page.screenshot()
    dark.page.get_by_role("button", name="Change between light and dark").click()
    assert dark.page.evaluate(ground) == "rgb(255, 255, 255)"
    dark.page.reload()
    assert dark.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_nothing_moves_for_whoever_wants_no_motion(visit: Visiting):
    count = """() => {
      window.moves = 0;
      const animate = Element.prototype.animate;
      Element.prototype.animate = function (...how) { moves += 1; return animate.apply(this, how); }
    }"""
    moves = {}
    for wish in ("reduce", "no-preference"):
        person = visit(reduced_motion=wish)
        person.page.evaluate(count)
        person.like("alien")
        moves[wish] = person.page.evaluate("moves")
    assert moves["reduce"] == 0 < moves["no-preference"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Visiting, scheme: str):
    person = visit(color_scheme=scheme, reduced_motion="reduce")
    accessible(person.page)
    person.become_user()
    for title in ("alien", "moon", "toast"):
        person.like(title)
    person.page.locator("summary").click()
    person.type("o")
    person.page.keyboard.press("ArrowDown")
    accessible(person.page)


def test_the_colours_are_those_of_the_report():
    light, dark = ((FOLDER / name).read_text() for name in ("palette.css", "dark.css"))
    ours = [dict(re.findall(r"--([\w-]+): (#\w+);", text)) for text in (light, dark)]
    report = re.findall(r"\{([^{}]*color-scheme: (?:light|dark)[^{}]*)\}", variables())
    theirs = [dict(re.findall(r"--([\w-]+): (#\w+);", text)) for text in report]
    assert ours[0] == theirs[0] and ours[1] == theirs[1]
