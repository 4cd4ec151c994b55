"""``foretaste codes`` does what it says, in words and in JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

SMALL = ("--set", "codes.tokenizer.levels=2", "--set", "codes.tokenizer.size=8", "--device", "cpu")


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A file of items without any log."""
    path = tmp_path / "books.csv"
    kinds = ("Dark Night", "Bright Day", "Long Road", "Short Way")
    lines = [f"b{n:02},{kinds[n % 4]} volume{n % 5}" for n in range(40)]
    path.write_text("\n".join(["book_id,title", *lines]))
    return path


def test_fit_and_report(foretaste, books, tmp_path) -> None:
    done = foretaste("codes", "fit", "--items", books, *SMALL)
    assert done.code == 0, done.err
    assert "codes-books-rqkmeans: 40 items, rqkmeans of text by tfidf" in done.out
    assert "share codes now" in done.out
    assert "foretaste codes report runs/codes-books-rqkmeans" in done.out
    folder = tmp_path / "runs" / "codes-books-rqkmeans"
    again = foretaste("codes", "fit", "--items", books, "--json", "--tokenizer", "opq", *SMALL)
    assert again.json["folder"] == "runs/codes-books-opq"
    assert again.json["report"]["collisions"]["after"] == 0
    told = foretaste("codes", "report", folder, "runs/codes-books-opq")
    assert told.code == 0, told.err
    assert "codes-books-opq: 40 items" in told.out
    assert "<html" in (folder / "report.html").read_text()
    plain = foretaste("codes", "report", folder, "-o", "page.html", "--json").json
    assert plain["report"] == "page.html"
    assert plain["codes"][0]["report"]["items"] == 40


def test_codes_of_a_trained_run(foretaste, log, trained) -> None:
    options = ("--data", log, "--text", "none", "--quiet", "--json", "--seeds", 0, *SMALL)
    done = foretaste("codes", "fit", *options, "--run", trained)
    assert done.code == 0, done.err
    assert done.json["sources"] == f"item vectors of {trained.name}"
    assert done.json["report"]["stability"] is None
    nothing = foretaste("codes", "fit", *options)
    assert nothing.code == 2
    assert "nothing to make codes of" in nothing.err


def test_coba_reads_the_histories_of_the_log(foretaste, log, trained) -> None:
    tiny = ("--set", "codes.tokenizer.steps=5", "--set", "codes.tokenizer.hidden=[8]")
    done = foretaste(
        *("codes", "fit", "--data", log, "--text", "none", "--run", trained, "--json"),
        *("--tokenizer", "coba", "--seeds", 0, "--seed", 4, *tiny, *SMALL),
    )
    assert done.code == 0, done.err
    assert done.json["seed"] == 4
    assert done.json["report"]["tokenizer"] == "coba"


def test_quiet_is_silent(foretaste, books) -> None:
    done = foretaste("codes", "fit", "--items", books, "--quiet", *SMALL)
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokenizer", "rqvea"), 'no tokenizer is called "rqvea". Did you mean "rqvae"'),
        (("--text", "tfdif"), 'codes.text.kind = "tfdif" is unknown'),
        (("--set", "model.dim=3"), "only data.*, split.* and codes.* can be set here"),
        (("--set", "codes.tokenizer.size=4096"), "40 items are fewer than the 4096 codes"),
        (("--tokenizer", "coba"), "coba: needs training histories"),
        (("--run", "nowhere"), "nowhere: not a run folder"),
        (("--output", "books.csv"), "books.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(foretaste, books, arguments, message) -> None:
    done = foretaste("codes", "fit", "--items", books, *SMALL, "--quiet", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_reports_of_what_is_no_folder(foretaste, tmp_path) -> None:
    done = foretaste("codes", "report", tmp_path)
    assert done.code == 2
    assert "not a folder of codes" in done.err
