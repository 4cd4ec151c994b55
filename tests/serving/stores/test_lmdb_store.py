"""LMDB: a map that grows, processes that die inside, a disk that is full, chunks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from foretaste.errors import InputError
from foretaste.serving.stores import Event, StateChange, StoreError, open_store
from foretaste.serving.stores import lmdb_chunks as chunks
from foretaste.serving.stores.lmdb_environment import Environment, Gate
from foretaste.serving.stores.lmdb_store import LmdbStore

SMALL = 1 << 17  # bytes: room for a few dozen pages


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    )


def fill(store: LmdbStore, name: str, calls: int) -> None:
    for n in range(calls):
        store.append([Event(f"{name}{k}", f"i{k}", n) for k in range(20)])


def check(store: LmdbStore, name: str, calls: int) -> None:
    for log, _ in store.read([f"{name}{k}" for k in range(20)], "model", 5, 100_000):
        assert log.times.tolist() == list(range(calls))


def test_a_map_that_is_full_grows_and_nothing_is_lost(tmp_path):
    with LmdbStore(tmp_path, sync=False, map_size=SMALL) as store:
        assert store._environment._environment.info()["map_size"] == SMALL
        fill(store, "u", 300)  # 6,000 events of 12 bytes
        records = np.arange(50 * 2_000, dtype=np.uint32).view(np.uint8).reshape(50, 8_000)
        store.extend([StateChange("u1", "model", 0, 50, records, 50)])  # 400 kB in one change
        check(store, "u", 300)
        assert store._environment._environment.info()["map_size"] >= 8 * SMALL
    with LmdbStore(tmp_path, map_size=SMALL) as store:  # smaller than what is there
        check(store, "u", 300)
        [(_, state)] = store.read(["u1"], "model", 50, 0)
        assert state is not None
        np.testing.assert_array_equal(state.records, records)
        store.append([Event("u1", "i", 300)])


def test_a_map_grows_while_others_read_and_write(tmp_path):
    with LmdbStore(tmp_path, sync=False, map_size=SMALL) as store:
        fill(store, "u", 1)
        done = threading.Event()

        def read() -> int:
            rounds = 0
            while not done.is_set():
                for log, _ in store.read([f"u{k}" for k in range(20)], "model", 5, 10):
                    assert log.times.tolist() == [0]
                rounds += 1
            return rounds

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            writers = [pool.submit(fill, store, f"w{n}-", 120) for n in range(3)]
            for writer in writers:
                writer.result()
            done.set()
            assert all(reader.result() > 0 for reader in readers)
        for n in range(3):
            check(store, f"w{n}-", 120)
        assert store._environment._environment.info()["map_size"] > 4 * SMALL


def test_a_map_that_another_process_enlarged_is_taken_over(tmp_path):
    with LmdbStore(tmp_path, sync=False, map_size=SMALL) as store:
        fill(store, "mine", 1)
        script = (
            "import sys\n"
            "from foretaste.serving.stores import Event\n"
            "from foretaste.serving.stores.lmdb_store import LmdbStore\n"
            f"with LmdbStore(sys.argv[1], sync=False, map_size={SMALL}) as store:\n"
            "    for n in range(300):\n"
            "        store.append([Event(f'other{k}', 'i', n) for k in range(20)])\n"
        )
        process = python(script, str(tmp_path))
        assert process.communicate(timeout=60) == ("", None) and process.returncode == 0
        check(store, "other", 300)  # a read finds the map resized
        fill(store, "mine", 0)
    with LmdbStore(tmp_path, sync=False, map_size=SMALL) as store:
        process = python(script.replace("other", "third"), str(tmp_path))
        process.communicate(timeout=60)
        store.append([Event("mine0", "i", 1)])  # and so does a write
        check(store, "third", 300)
        assert store.read(["mine0"], "model", 5, 5)[0][0].total == 2


def test_a_process_killed_within_a_write_leaves_no_lock_and_no_half_of_it(tmp_path):
    with LmdbStore(tmp_path) as store:
        store.append([Event("ann", "tea", 1)])
        script = (
            "import sys, time\n"
            "from foretaste.serving.stores.lmdb_store import LmdbStore\n"
            "store = LmdbStore(sys.argv[1])\n"
            "def change(transaction):\n"
            "    transaction.put(b'k' * 16, b'half', db=store._log)\n"
            "    print('inside', flush=True)\n"
            "    time.sleep(600)\n"
            "store._environment.write(change)\n"
        )
        with python(script, str(tmp_path)) as process:
            assert process.stdout is not None and process.stdout.readline() == "inside\n"
            process.kill()
        store.append([Event("ann", "bun", 2)])
        [(log, _)] = store.read(["ann"], "model", 5, 5)
        assert store.item_ids(log.items) == ["tea", "bun"]
        half = store._environment.read(lambda t: t.get(b"k" * 16, db=store._log))
        assert half is None


def test_readers_that_were_killed_are_cleared_away(tmp_path):
    with LmdbStore(tmp_path) as store:
        store.append([Event("ann", "tea", 1)])
        script = (
            "import sys, time\n"
            "from foretaste.serving.stores.lmdb_store import LmdbStore\n"
            "store = LmdbStore(sys.argv[1])\n"
            "store._environment.read(lambda t: (print('in', flush=True), time.sleep(600)))\n"
        )
        with python(script, str(tmp_path)) as process:
            assert process.stdout is not None and process.stdout.readline() == "in\n"
            process.kill()
    with LmdbStore(tmp_path) as store:
        assert store._environment._environment.readers().count("\n") <= 2  # a heading and ours
        assert store._environment._environment.reader_check() == 0


def test_a_full_disk_is_an_error_until_there_is_room(tmp_path):
    # A limit on the size of files stands for the full disk.
    script = (
        "import resource, sys\n"
        "from foretaste.serving.stores import Event, StoreError\n"
        "from foretaste.serving.stores.lmdb_store import LmdbStore\n"
        "store, written = LmdbStore(sys.argv[1]), 0\n"
        "_, most = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))\n"
        "try:\n"
        "    while written < 2_000:\n"
        "        store.append([Event(f'u{written}-{k}', 'i', k) for k in range(50)])\n"
        "        written += 1\n"
        "except StoreError as error:\n"
        "    print(error)\n"
        "assert store.read(['u0-7'], 'model', 5, 5)[0][0].total == 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "store.append([Event('last', 'i', 1)])\n"
        "for n in range(written):\n"
        "    assert store.read([f'u{n}-49'], 'model', 5, 5)[0][0].total == 1\n"
        "assert store.read([f'u{written}-0', 'last'], 'model', 5, 5)[0][0].total == 0\n"
        "print(written)\n"
    )
    process = python(script, str(tmp_path))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    error, written = said.splitlines()
    assert error.startswith(f"lmdb:{tmp_path}: ")
    assert "File too large" in error or "Input/output error" in error  # a write cut short
    assert 5 < int(written) < 2_000


def test_writes_of_waiting_threads_share_a_commit(tmp_path):
    with LmdbStore(tmp_path) as store:
        inside, go = threading.Event(), threading.Event()

        def slow(transaction) -> None:
            inside.set()
            assert go.wait(30)

        def last() -> int:
            return store._environment._environment.info()["last_txnid"]

        with ThreadPoolExecutor(21) as pool:
            first = pool.submit(store._environment.write, slow)
            assert inside.wait(30)
            before = last()
            waiting = [pool.submit(store.append, [Event(f"u{n}", f"i{n}", n)]) for n in range(20)]
            while len(store._environment._queue) < 20:
                pass
            go.set()
            first.result()
            for one in waiting:
                one.result()
        # One transaction of the slow writer (which wrote nothing, so it leaves no number) and one
        # of all the others.
        assert last() - before <= 2
        assert [log.total for log, _ in store.read([f"u{n}" for n in range(20)], "m", 1, 1)] == [
            1
        ] * 20


def test_an_error_reaches_everybody_of_the_group_and_then_all_is_well(tmp_path):
    with LmdbStore(tmp_path) as store:
        inside, go = threading.Event(), threading.Event()

        def slow(transaction) -> None:
            inside.set()
            assert go.wait(30)

        def wrong(transaction) -> None:
            transaction.put(b"", b"no key is empty", db=store._log)

        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(store._environment.write, slow)
            assert inside.wait(30)
            bad = pool.submit(store._environment.write, wrong)
            while len(store._environment._queue) < 1:
                pass
            good = pool.submit(store.append, [Event("ann", "tea", 1)])
            while len(store._environment._queue) < 2:
                pass
            go.set()
            first.result()
            for one in (bad, good):
                with pytest.raises(StoreError, match="^lmdb:.*BAD_VALSIZE"):
                    one.result()
        assert store.read(["ann"], "model", 5, 5)[0][0].total == 0
        store.append([Event("ann", "tea", 1)])
        assert store.read(["ann"], "model", 5, 5)[0][0].total == 1


def test_two_ids_of_one_hash_are_told_apart(tmp_path):
    # Nobody knows two such ids; this is what the file would hold.
    with LmdbStore(tmp_path) as store:
        store.append([Event("ann", "tea", 1), Event("bob", "tea", 1)])

        def swap(transaction) -> None:
            with transaction.cursor(store._log) as cursor:
                (one, a), (two, b) = [(bytes(k), bytes(v)) for k, v in cursor]
            transaction.put(one, b, db=store._log)
            transaction.put(two, a, db=store._log)

        store._environment.write(swap)
        for call in (
            lambda: store.read(["ann"], "model", 5, 5),
            lambda: store.append([Event("bob", "tea", 1)]),
        ):
            with pytest.raises(StoreError, match="same hash"):
                call()


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    for folder in (file, file / "under", "a\0b", "/proc/nowhere"):
        with pytest.raises(InputError, match=r"^lmdb:.*Name a"):
            open_store(f"lmdb:{folder}")


def test_a_file_that_is_no_environment_is_an_error(tmp_path):
    (tmp_path / "data.mdb").write_bytes(os.urandom(20_000))
    with pytest.raises(StoreError, match=r"^lmdb:.*(not a|INVALID|invalid)"):
        open_store(f"lmdb:{tmp_path}")


def test_a_store_that_is_open_already_says_so(tmp_path):
    with LmdbStore(tmp_path), pytest.raises(StoreError, match="already open"):
        LmdbStore(tmp_path)
    with LmdbStore(tmp_path) as again:
        again.ping()


def test_a_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_store("lmdb:~/kept") as store:
        store.append([Event("ann", "tea", 1)])
    assert (tmp_path / "kept" / "data.mdb").stat().st_mode & 0o077 == 0


def test_a_gate_lets_in_many_or_one_alone():
    gate, inside = Gate(), threading.Event()
    with gate, gate:
        alone = threading.Thread(target=lambda: _alone(gate, inside))
        alone.start()
        assert not inside.wait(0.05)
    assert inside.wait(10)
    alone.join()
    with gate:
        pass


def _alone(gate: Gate, inside: threading.Event) -> None:
    with gate.alone():
        assert gate._inside == 0
        inside.set()


@pytest.mark.parametrize(
    ("width", "most", "chunk"),
    [
        (12, 80, 80),  # no more than was asked for
        (14, 200, 140),  # (4,096 - 16) // 2 - 2 - 8 = 2,030 bytes, less 60, by 14
        (490, 50, 4),
        (500, 50, 32),  # fewer than four would share a page: four pages of their own
        (2_048, 50, 7),
        (2_052, 50, 7),
        (16_384, 50, 1),
        (100_000, 50, 1),
    ],
)
def test_a_chunk_is_as_long_as_the_pages_make_it(width, most, chunk):
    assert chunks.capacity(width, 4_096, 60, most) == chunk


def test_chunks_are_sealed_read_trimmed_and_dropped(tmp_path):
    environment = Environment(tmp_path, ("a",), 1 << 20, False)
    [database] = environment.databases
    others = [b"key", b"kez", b"key\xff\xff\xff\xff\xff", b"ke"]

    def write(transaction) -> bytes:
        opened = b""
        for record in (b"0123", b"45", b"6", b"789abcdefg"):
            opened = chunks.append(transaction, database, b"keyx", opened, record, 4)
        transaction.put(b"keyx", opened, db=database)
        for other in others:
            transaction.put(other, b"other", db=database)
        return opened

    assert environment.write(write) == b"g"

    def sealed(transaction) -> list[tuple[bytes, bytes]]:
        with transaction.cursor(database) as cursor:
            return [(bytes(k), bytes(v)) for k, v in cursor if bytes(k) not in others]

    assert environment.read(sealed) == [
        (b"keyx", b"g"),
        *(
            (b"keyx\0\0\0" + bytes([n]), part)
            for n, part in enumerate([b"0123", b"4567", b"89ab", b"cdef"])
        ),
    ]
    for wanted in range(20):
        tail = environment.read(
            lambda t, wanted=wanted: chunks.tail(t, database, b"keyx", b"g", wanted)
        )
        assert tail == b"0123456789abcdefg"[max(17 - wanted, 0) :]
    environment.write(lambda t: chunks.trim(t, database, b"keyx", 1, 6))
    assert [k[-1] for k, _ in environment.read(sealed)[1:]] == [2, 3]
    assert environment.write(lambda t: chunks.drop(t, database, b"keyx")) == 3
    assert environment.read(lambda t: t.stat(database)["entries"]) == len(others)
    environment.close()


def test_sizes_add_up_to_the_pages_of_the_file(tmp_path):
    with LmdbStore(tmp_path, sync=False) as store:
        users = [f"u{n}" for n in range(500)]
        store.append([Event(user, "x", n) for user in users for n in range(130)])
        rng = np.random.default_rng(0)
        for model, width in (("narrow", 14), ("wide", 2_048)):
            changes = [
                StateChange(user, model, 0, 60, np.zeros((60, width), np.uint8), 50, True)
                for user in users[: 500 if model == "narrow" else 50]
            ]
            rng.shuffle(changes)  # type: ignore[arg-type]
            store.extend(changes)
        sizes = [store.size(user) for user in users]

        # Shared pages are never full: two thirds on average where keys come in no order.
        pages, file = store.pages(), (tmp_path / "data.mdb").stat().st_size
        logs = sum(size.log_bytes for size in sizes)
        states = sum(size.state_bytes for size in sizes)
        assert 0.5 * pages.log_bytes < logs <= pages.log_bytes
        assert 0.5 * pages.state_bytes < states <= pages.state_bytes
        assert sum(pages) <= file


def test_without_sync_the_commit_does_not_wait(tmp_path):
    with LmdbStore(tmp_path / "a", sync=False) as store:
        assert not store._environment._environment.flags()["sync"]
    with open_store(f"lmdb:{tmp_path / 'b'}") as store:
        assert isinstance(store, LmdbStore)
        flags = store._environment._environment.flags()
        assert flags["sync"] and flags["metasync"]
