"""Redis: a server that dies, stalls, is full, forgets, or is no Redis at all."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from foretaste.serving.stores import Event, StateChange, StoreError, open_store
from foretaste.serving.stores import redis_scripts as lua
from foretaste.serving.stores.redis_store import RedisStore

from .redis_server import RedisServer


def event(user: str, item: str) -> list[Event]:
    return [Event(user, item, 7)]


def state(user: str, *values: int) -> list[StateChange]:
    records = np.array(values, np.uint8)[:, None]
    return [StateChange(user, "model", 0, len(values), records, 5, fresh=True)]


def every_call(store):
    """All that goes to the server."""
    return [
        store.ping,
        lambda: store.append(event("ann", "a")),
        lambda: store.read(["ann"], "model", 5, 5),
        lambda: store.extend(state("ann", 1)),
        lambda: store.forget("ann"),
        lambda: store.size("ann"),
        lambda: store.sweep(gone=["model"]),
        store.known_items,
    ]


def test_a_server_that_dies_is_an_error_at_once_and_is_found_again(own_redis):
    with open_store(own_redis.url, timeout=20) as store:
        store.append(event("ann", "tea"))
        store.extend(state("ann", 1))
        own_redis.kill()
        for call in every_call(store):
            began = time.monotonic()
            with pytest.raises(StoreError, match=rf"^redis://127.0.0.1:{own_redis.port}/0: .+"):
                call()
            assert time.monotonic() - began < 5
        own_redis.start()
        store.ping()  # the first call after it is back
        store.append(event("ann", "bun"))
        [(log, kept)] = store.read(["ann"], "model", 5, 5)
        assert store.item_ids(log.items) == ["tea", "bun"]
        assert kept is not None and kept.consumed == 1


def test_numbers_that_a_server_lost_and_gave_out_anew_are_learnt_anew(tmp_path):
    server = RedisServer(tmp_path)  # it comes back with its last snapshot
    server.start()
    try:
        with open_store(server.url, timeout=20) as store, open_store(server.url) as other:
            store.append(event("ann", "tea"))
            with server.client() as client:
                client.save()
            store.append(event("ann", "bun"))
            [(log, _)] = store.read(["ann"], "model", 5, 5)
            lost = log.items[1]
            assert store.item_ids(log.items) == ["tea", "bun"]
            server.kill()
            server.start()
            other.append(event("bob", "jam"))  # gets the number that bun had
            for one in (store, other):
                logs = [log for log, _ in one.read(["ann", "bob"], "model", 5, 5)]
                assert [one.item_ids(log.items) for log in logs] == [["tea"], ["jam"]]
            assert store.item_ids(np.array([lost])) == ["bun"]  # what was told stays true
    finally:
        server.kill()


def test_a_server_that_does_not_tell_its_process_is_read_all_the_same(own_redis):
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">word", "~*", "+@all", "-info")
    with open_store(own_redis.url.replace("://", "://shop:word@")) as store:
        store.append(event("ann", "tea"))
        [(log, _)] = store.read(["ann"], "model", 5, 5)
        assert store.item_ids(log.items) == ["tea"]


def test_a_store_may_be_opened_before_its_server_is_up(own_redis):
    own_redis.kill()
    with open_store(own_redis.url, timeout=20) as store:
        with pytest.raises(StoreError):
            store.append(event("ann", "tea"))
        own_redis.start()
        store.append(event("ann", "tea"))
        assert store.known_items() == ["tea"]


def test_a_server_that_stalls_costs_one_wait_and_not_one_each(own_redis, eventually):
    with open_store(own_redis.url, timeout=0.5) as store:
        store.append(event("ann", "tea"))
        own_redis.pause()
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"no answer within 0\.5 s"):
            store.read(["ann"], "model", 5, 5)
        waited = time.monotonic() - began
        assert 0.4 < waited < 5
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(StoreError, match="no answer"):
                store.read(["ann"], "model", 5, 5)
        assert time.monotonic() - began < 5  # not twenty times half a second
        own_redis.go_on()

        def answers() -> bool:
            try:
                return store.read(["ann"], "model", 5, 5)[0][0].total == 1
            except StoreError:
                return False

        eventually(answers)


def test_many_threads_wait_no_longer_than_one(own_redis):
    with open_store(own_redis.url, timeout=0.5) as store:
        store.ping()
        own_redis.pause()
        began, failed = time.monotonic(), []

        def ask() -> None:
            try:
                store.read(["ann"], "model", 5, 5)
            except StoreError as error:
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failed) == 8
        assert time.monotonic() - began < 4
        own_redis.go_on()


def test_numbers_keep_their_meaning_when_the_server_loses_its_data(shared_place):
    place = shared_place("redis")
    with place.open() as store, place.open() as other:
        store.append([*event("ann", "tea"), *event("ann", "bun")])
        [(log, _)] = store.read(["ann"], "model", 5, 5)
        assert store.known_items() == ["tea", "bun"]
        with place.open() as third:
            third._client.flushall()
        assert store.read(["ann"], "model", 5, 5)[0][0].total == 0
        # The server numbers from 0 again, in another order.
        other.append([*event("ann", "bun"), *event("ann", "tea")])
        [(now, _)] = store.read(["ann"], "model", 5, 5)
        assert store.item_ids(now.items) == ["bun", "tea"]
        other.append(event("ann", "jam"))
        [(now, _)] = store.read(["ann"], "model", 5, 5)
        assert store.item_ids(now.items) == ["bun", "tea", "jam"]
        assert store.item_ids(log.items) == ["tea", "bun"]
        assert store.known_items() == ["tea", "bun", "jam"]


def test_a_log_whose_dictionary_is_gone_is_not_read_with_another(shared_place):
    place = shared_place("redis")
    with place.open() as store:
        store.append([*event("ann", "tea"), *event("ann", "bun")])
        store.extend(state("ann", 1))
        store._client.delete("ft:names")  # as a server may do that evicts what it likes
        store.append(event("bob", "jam"))
        [(log, kept)] = store.read(["ann"], "model", 5, 5)
        assert (log.total, kept) == (0, None)
        assert store.extend(state("ann", 1)) == [False]
        store.append(event("ann", "pie"))
        [(log, kept)] = store.read(["ann"], "model", 5, 5)
        assert (store.item_ids(log.items), kept) == (["pie"], None)
        assert store.sweep() == 1


def test_what_a_sweep_leaves_and_what_comes_during_one_is_found_to_be_forgotten(shared_place):
    users = [f"u{n}" for n in range(2_500)]
    with shared_place("redis").open() as store:

        def states() -> int:
            return len([*store._client.scan_iter(lua.STATE + b"*")])

        store.append([one for user in users for one in event(user, "a")])
        store.extend([one for user in users for one in state(user, 1)])
        assert 0 < store.sweep(gone=["model"], stopped=lambda: True) < len(users)
        left = states()
        for user in users[:-1]:
            assert store.forget(user)
        assert left > 1 >= states()

        def keep_on() -> bool:  # an answer that was under way
            store.append(event("u0", "a"))
            return store.extend(state("u0", 1)) != [True]

        store.extend(state(users[-1], 1))
        store.sweep(gone=["model"], stopped=keep_on)
        assert store.forget("u0")
        assert states() == 0


def test_scripts_that_the_server_has_dropped_are_sent_again(shared_place):
    with shared_place("redis").open() as store:
        for n in range(3):
            store._client.script_flush()
            store.append(event("ann", "tea"))
            store._client.script_flush()
            assert store.read(["ann"], "model", 5, 5)[0][0].total == n + 1


def test_a_full_server_is_an_error_until_there_is_room(own_redis):
    with open_store(own_redis.url, timeout=20) as store, own_redis.client() as client:
        store.append(event("ann", "tea"))
        store.extend(state("ann", 1))
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"maxmemory"):
            store.append(event("ann", "bun"))
        more = StateChange("ann", "model", 1, 1, np.empty((0, 1), np.uint8), 5)
        with pytest.raises(StoreError, match=r"maxmemory"):
            store.extend([more])
        [(log, kept)] = store.read(["ann"], "model", 5, 5)  # what is there can be read
        assert log.total == 1 and kept is not None and kept.consumed == 1
        client.config_set("maxmemory", 0)
        store.append(event("ann", "bun"))
        assert store.item_ids(store.read(["ann"], "model", 5, 5)[0][0].items) == ["tea", "bun"]


def test_keys_of_somebody_else_are_an_error(shared_place):
    with shared_place("redis").open() as store:
        store._client.hset("ft:l:ann", "a", "b")
        for call in (
            lambda: store.append(event("ann", "tea")),
            lambda: store.read(["ann"], "model", 5, 5),
        ):
            with pytest.raises(StoreError, match="WRONGTYPE"):
                call()


def test_a_wrong_password_is_an_error_that_does_not_tell_it(own_redis):
    with own_redis.client() as client:
        client.config_set("requirepass", "right p@ss")
        address = own_redis.url.removeprefix("redis://")
        for given in ("", ":hunter2@", "me:hunter2@"):
            with open_store(f"redis://{given}{address}", timeout=20) as store:
                with pytest.raises(StoreError) as raised:
                    store.ping()
                assert "hunter2" not in str(raised.value) and "hunter2" not in store.name
        with open_store(f"redis://:right%20p%40ss@{address}", timeout=20) as store:
            store.append(event("ann", "tea"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\x00\xff" * 100,
        b":not a number\r\n",
        b"*1\r\n$-7\r\n",
        b"$5\r\nab",
        b"",
    ],
)
def test_a_server_that_is_no_redis_is_an_error(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            server.settimeout(0.1)
            while not done.is_set():
                try:
                    client, _ = server.accept()
                except TimeoutError:
                    continue
                with client:
                    client.settimeout(2)
                    try:
                        client.recv(100_000)
                        client.sendall(answer)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with RedisStore(f"redis://127.0.0.1:{server.getsockname()[1]}", timeout=0.3) as store:
                for call in every_call(store):
                    began = time.monotonic()
                    with pytest.raises(StoreError, match=r"^redis://127\.0\.0\.1:\d+/0: .+"):
                        call()
                    assert time.monotonic() - began < 5
        finally:
            done.set()
            thread.join()


def test_a_call_of_many_users_and_events_is_cut(shared_place):
    with shared_place("redis").open() as store:
        many = [Event(f"u{n % 4_500}", f"i{n % 1_000}", n) for n in range(27_000)]
        store.append([*many, *(Event("heavy", f"i{n % 7}", n) for n in range(25_000))])
        users = [f"u{n}" for n in range(4_500)]
        answers = store.read([*users, "heavy"], "model", 5, 3)
        assert [log.total for log, _ in answers] == [6] * 4_500 + [25_000]
        assert [log.times.tolist() for log, _ in answers] == [
            *([n + 13_500, n + 18_000, n + 22_500] for n in range(4_500)),
            [24_997, 24_998, 24_999],
        ]
        assert store.extend([state(user, 1)[0] for user in users]) == [True] * 4_500
        assert sorted(store.known_items()) == sorted(f"i{n}" for n in range(1_000))
        assert store.item_ids(answers[-1][0].items) == ["i0", "i1", "i2"]  # 24,997 is 7 x 3,571


def scripts_run(store) -> int:
    """How often a client has called a script so far."""
    return store._client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


def test_each_call_is_one_round_trip(shared_place):
    with shared_place("redis").open() as store:
        users = [f"u{n}" for n in range(50)]
        calls = [
            lambda: store.append([Event(user, "tea", n) for user in users for n in range(9)]),
            lambda: store.extend([state(user, 1, 2)[0] for user in users]),
            lambda: store.read(users, "model", 5, 5),
        ]
        for _ in range(2):  # the first time the scripts and the dictionary are learnt as well
            counts = [scripts_run(store)]
            for call in calls:
                call()
                counts.append(scripts_run(store))
        assert np.diff(counts).tolist() == [1, 1, 1]


def test_a_read_of_many_bytes_is_cut(shared_place):
    with shared_place("redis").open() as store:
        users = [f"u{n}" for n in range(30)]
        store.append([Event(user, "tea", n) for user in users for n in range(50)])
        made = np.random.default_rng(0).integers(0, 256, (30, 50, 10_000), np.uint8)
        changes = [
            StateChange(user, "model", 0, 50, own, 50)
            for user, own in zip(users, made, strict=True)
        ]
        assert store.extend(changes) == [True] * 30
        before = scripts_run(store)
        answers = store.read(users, "model", 50, 0)
        assert 4 <= scripts_run(store) - before <= 8  # 15 MB, 4 at a time
        for (log, kept), own in zip(answers, made, strict=True):
            assert kept is not None and log.total == 50
            np.testing.assert_array_equal(kept.records, own)


def test_short_strings_take_no_more_room_than_they_have_bytes(shared_place):
    with shared_place("redis").open() as store:
        store.append([Event("ann", "tea", n) for n in range(100)])
        made = np.arange(100 * 20, dtype=np.uint16).view(np.uint8).reshape(100, 40)
        for n in range(100):
            one = StateChange("ann", "model", n, n + 1, made[n : n + 1], 30)
            assert store.extend([one]) == [True]
        [name] = store._client.scan_iter("ft:s:*")
        assert store._client.strlen(name) == 16 + 30 * 40  # the window and nothing else
        assert store.size("ann").state_bytes < 1_216 + 200
        [(_, kept)] = store.read(["ann"], "model", 30, 0)
        assert kept is not None
        np.testing.assert_array_equal(kept.records, made[-30:])


def test_who_was_forgotten_is_in_the_servers_file_until_that_is_rewritten(
    own_redis, tmp_path, eventually
):
    def holds() -> bool:
        found = b""
        for file in tmp_path.rglob("*.aof"):
            with suppress(FileNotFoundError):  # replaced at this moment
                found += file.read_bytes()
        return b"ann-the-secret" in found

    with open_store(own_redis.url, timeout=20) as store, own_redis.client() as client:
        store.append([Event("ann-the-secret", "tea", 1)])
        store.forget("ann-the-secret")
        assert holds()
        client.bgrewriteaof()
        eventually(lambda: not holds())
