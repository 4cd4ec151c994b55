"""What was forgotten leaves the disk when the folder is next opened or closed by one alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foretaste.serving.stores import Event, StateChange
from foretaste.serving.stores.lmdb_rewriting import COPY, DATA
from foretaste.serving.stores.lmdb_store import LmdbStore

SECRET = "ann-whom-nobody-shall-find"
RECORD = bytes(range(200, 240))
MOMENT = 7_777_777_777_123

HOLD = """
import sys
from foretaste.serving.stores.lmdb_store import LmdbStore
with LmdbStore(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""

FORGET_AND_DIE = """
import os, signal, sys
from foretaste.serving.stores.lmdb_store import LmdbStore
LmdbStore(sys.argv[1]).forget(sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def fill(store: LmdbStore) -> None:
    """Two users whose values were written often and whose long states lie in pages of their own."""
    for user in (SECRET, "bob"):
        for n in range(60):
            store.append([Event(user, f"i{n % 7}", n)])
    records = np.frombuffer(RECORD * 500, np.uint8).reshape(-1, 40)
    assert store.extend([StateChange(SECRET, "model", 0, 60, records[:60], 60)]) == [True]


def holds(folder: Path) -> bool:
    """Whether any file under the folder says something of her."""
    contents = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return any(SECRET.encode() in content or RECORD in content for content in contents)


def in_file(folder: Path, part: bytes) -> bool:
    """Whether the store's file has these bytes anywhere."""
    return part in (folder / DATA).read_bytes()


def others_are_there(store: LmdbStore) -> None:
    """Bob's log is whole, she has none, and the ids of items are as they were."""
    [(log, _), (gone, _)] = store.read(["bob", SECRET], "model", 60, 100)
    assert log.times.tolist() == list(range(60)) and gone.total == 0
    assert store.item_ids(log.items) == [f"i{n % 7}" for n in range(60)]


def test_a_store_that_is_closed_holds_nothing_of_who_was_forgotten(tmp_path):
    with LmdbStore(tmp_path) as store:
        fill(store)
        assert store.forget(SECRET)
        assert holds(tmp_path)  # pages that are free keep their bytes
    assert not holds(tmp_path)
    assert (tmp_path / DATA).stat().st_mode & 0o077 == 0
    with LmdbStore(tmp_path) as store:
        others_are_there(store)
        store.append([Event("cat", "i1", 5)])


def test_it_is_made_up_for_at_the_start_after_a_kill(tmp_path):
    with LmdbStore(tmp_path) as store:
        fill(store)
    subprocess.run([sys.executable, "-c", FORGET_AND_DIE, str(tmp_path), SECRET], check=False)
    assert holds(tmp_path)
    (tmp_path / COPY).mkdir()
    (tmp_path / COPY / DATA).write_bytes(SECRET.encode())  # killed while it was written anew
    with LmdbStore(tmp_path) as store:
        assert not holds(tmp_path)
        others_are_there(store)


def test_a_file_that_others_have_open_is_never_replaced(tmp_path):
    with LmdbStore(tmp_path) as store:
        fill(store)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with LmdbStore(tmp_path) as store:
            file = os.stat(tmp_path / DATA).st_ino
            store.forget(SECRET)
        with LmdbStore(tmp_path) as store:
            assert os.stat(tmp_path / DATA).st_ino == file
            store.append([Event("cat", "i1", 5)])
        assert holds(tmp_path)
        other.communicate("")  # the last to close it
    assert not holds(tmp_path)
    with LmdbStore(tmp_path) as store:
        others_are_there(store)
        assert store.read(["cat"], "model", 1, 1)[0][0].total == 1


def test_without_a_forgotten_user_the_file_stays(tmp_path):
    with LmdbStore(tmp_path) as store:
        fill(store)
        assert not store.forget("nobody")
    file = os.stat(tmp_path / DATA).st_ino
    with LmdbStore(tmp_path) as store:
        store.forget(SECRET)
    assert os.stat(tmp_path / DATA).st_ino != file
    file = os.stat(tmp_path / DATA).st_ino
    with LmdbStore(tmp_path) as store:  # once is enough
        others_are_there(store)
    assert os.stat(tmp_path / DATA).st_ino == file


def test_logs_that_expired_go_from_the_disk_too(tmp_path):
    now = [1_000]
    with LmdbStore(tmp_path, log_ttl=100, clock=lambda: now[0]) as store:
        fill(store)
        now[0] = 2_000
        store.sweep()
    assert not holds(tmp_path)


def test_a_log_that_expired_goes_from_the_disk_when_its_user_comes_back(tmp_path):
    now = [1_000]
    with LmdbStore(tmp_path, log_ttl=100, clock=lambda: now[0]) as store:
        fill(store)
        store.append([Event(SECRET, "i1", MOMENT)])
        now[0] = 2_000
        store.append([Event(SECRET, "i1", 5)])
        assert store.read([SECRET], "model", 1, 9)[0][0].total == 1
        assert in_file(tmp_path, MOMENT.to_bytes(8, "little"))
    assert not in_file(tmp_path, MOMENT.to_bytes(8, "little"))


@pytest.mark.parametrize("way", ["sweep", "extend"])
def test_a_state_of_a_log_that_is_gone_goes_from_the_disk(way, tmp_path):
    now = [1_000]

    def opened() -> LmdbStore:
        return LmdbStore(tmp_path, log_ttl=100, clock=lambda: now[0])

    with opened() as store:
        fill(store)
        now[0] = 2_000
        store.append([Event(SECRET, "i1", 5)])
    assert in_file(tmp_path, RECORD)  # the file is new, and the state still in it
    with opened() as store:
        if way == "sweep":
            store.sweep()
        else:
            record = np.zeros((1, len(RECORD)), np.uint8)
            assert store.extend([StateChange(SECRET, "model", 0, 1, record, 5, fresh=True)])[0]
        assert in_file(tmp_path, RECORD)
    assert not in_file(tmp_path, RECORD)


def test_what_cannot_be_copied_is_told_and_tried_again(tmp_path, caplog):
    with LmdbStore(tmp_path) as store:
        fill(store)
    subprocess.run([sys.executable, "-c", FORGET_AND_DIE, str(tmp_path), SECRET], check=False)
    (tmp_path / COPY).write_text("in the way")  # no folder can be made here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        with LmdbStore(tmp_path) as store:
            others_are_there(store)
    assert holds(tmp_path) and "still in free pages" in caplog.text
    (tmp_path / COPY).unlink()
    with LmdbStore(tmp_path) as store:
        others_are_there(store)
    assert not holds(tmp_path)
