"""``foretaste codes`` does what it says, in words and in JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from foretaste.recommenders.core.coding import CodedCatalog

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
    (folder / "coding.json").unlink()  # what says that the folder is whole
    cut = foretaste("codes", "report", folder)
    assert cut.code == 2
    assert "holds no codes" in cut.err


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


@pytest.fixture
def endpoint(monkeypatch) -> Iterator[str]:
    """An embeddings endpoint on loopback: texts of one kind have vectors near each other."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            lines = [
                {
                    "index": n,
                    "embedding": [float(text.count(letter)) for letter in "abdghnorty"],
                }
                for n, text in enumerate(asked["input"])
            ]
            content = json.dumps({"model": asked["model"], "data": lines}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_texts_go_to_an_endpoint_once(foretaste, books, endpoint, tmp_path) -> None:
    asked = ("codes", "fit", "--items", books, "--text", "endpoint", "--seeds", 0, "--json", *SMALL)
    model = ("--set", "codes.text.model=letters", "--cache", tmp_path / "vectors.sqlite")
    here = ("--set", f"codes.text.url={endpoint}")
    done = foretaste(*asked, *model, *here)
    assert done.code == 0, done.err
    assert done.json["sources"] == "text by endpoint"
    assert done.json["report"]["collisions"]["after"] == 0
    first = CodedCatalog.load(tmp_path / done.json["folder"], device="cpu").codes
    by_kind = [set(first.nearest[kind::4, 0].tolist()) for kind in range(4)]
    assert [len(codes) for codes in by_kind] == [1] * 4
    assert len(set.union(*by_kind)) == 4
    gone = ("--set", "codes.text.tries=1")
    no_server = foretaste(*asked, *model, "--set", "codes.text.url=http://127.0.0.1:9/v1", *gone)
    assert no_server.code == 2
    assert "http://127.0.0.1:9/v1: no embeddings from letters" in no_server.err
    assert no_server.err.count("\n") == 1


def test_a_seed_beyond_all_seeds_is_refused(foretaste, books) -> None:
    done = foretaste("codes", "fit", "--items", books, *SMALL, "--seed", 2**63)
    assert done.code == 2
    assert "Invalid value for '--seed'" in done.err


def test_quiet_is_silent(foretaste, books) -> None:
    done = foretaste("codes", "fit", "--items", books, "--quiet", *SMALL)
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokenizer", "rqvea"), 'no tokenizer is called "rqvea". Did you mean "rqvae"'),
        (("--text", "tfdif"), 'codes.text.kind = "tfdif" is unknown'),
        (("--set", "model.dim=3"), "only data.*, split.* and codes.* can be set here"),
        (
            ("--set", "codes.tokenizer.size=4096"),
            "codes of a level. Lower codes.tokenizer.size",
        ),
        (("--tokenizer", "coba"), "coba: needs training histories"),
        (("--k-core", 5), "--k-core is about a log, and --items is none. Give --data too."),
        (("--set", "split.kind=leave-last-out"), "--set split.kind is about a log"),
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
