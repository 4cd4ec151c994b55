"""What a node tells at home: why it could not answer, whom it trains, what became of views."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Self

import pytest

from foretaste.errors import InputError
from foretaste.experiments.running import reopen
from foretaste.federated.core.messages import PROTOCOL, Order
from foretaste.federated.engines.node_log import FILE, Watching, counted, last_warning, node_log
from foretaste.federated.plan import Plan
from foretaste.federated.running import NODES, federate, prepare
from foretaste.progress import Task

LOGGER = logging.getLogger("foretaste.federated.somewhere")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_lines_hold_what_was_said_with_its_counts(tmp_path):
    with node_log(tmp_path / "state"):
        LOGGER.info("%(made)d of %(kind)s", {"made": 3, "kind": "views"})
        try:
            raise ValueError("anna")
        except ValueError:
            LOGGER.warning("node 1 broke", exc_info=True)
    LOGGER.warning("afterwards")
    with node_log(tmp_path / "state"):
        LOGGER.info("%(made)d of %(kind)s", {"made": 4, "kind": "views"})
    told = lines(tmp_path / "state")
    assert [one["level"] for one in told] == ["info", "warning", "info"]
    assert told[0]["said"] == "3 of views" and told[0]["made"] == 3
    assert "ValueError: anna" in told[1]["said"]
    assert counted(tmp_path / "state") == {"made": 7}
    assert last_warning(tmp_path / "state").startswith("node 1 broke Traceback")
    assert counted(tmp_path) == {} and last_warning(tmp_path) == ""


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path):
    with node_log(tmp_path):
        LOGGER.warning("%(made)d of %(kind)s", {"made": 3, "kind": "views"})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"at": "2026", "level": "warning", "said": "\xc3')
    assert counted(tmp_path) == {"made": 3}
    assert last_warning(tmp_path).startswith("3 of views")


def test_warnings_go_to_the_terminal_as_without_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for folder in (None, tmp_path):
        with node_log(folder):
            LOGGER.info("aside")
            LOGGER.warning("mind this")
        assert capsys.readouterr().err == "mind this\n"


def test_views_that_other_processes_make_show_beside_the_bar(tmp_path, monkeypatch):
    notes: list[tuple[int, str]] = []

    class Bar:
        def advance(self, steps: int = 1, note: str = "") -> None:
            notes.append((steps, note))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, kind, error, trace) -> None:
            return None

    class Bars:
        def task(self, description: str, total: int | None = None) -> Task:
            assert (description, total) == ("federating", 3)
            return Bar()

    monkeypatch.setattr("foretaste.federated.engines.node_log.EVERY", 0.01)
    with Watching(Bars(), tmp_path).task("federating", 3) as task, node_log(tmp_path):
        LOGGER.info("%(made)d", {"made": 16})
        LOGGER.info("%(made)d", {"made": 4})
        while not notes or "20" not in notes[-1][1]:
            time.sleep(0.01)
        task.advance(1, "loss 2.0")
    assert notes[-2:] == [(0, "views of 20 histories made"), (1, "loss 2.0")]


@pytest.fixture
def log(tmp_path) -> Path:
    """24 users who walk through a ring of 12 films."""
    rows = [
        f"u{user},i{(user + step) % 12},{1_600_000_000 + 1_000 * step + user}"
        for user in range(24)
        for step in range(6 + user % 5)
    ]
    path = tmp_path / "ring.csv"
    path.write_text("\n".join(["user,item,time", *rows]))
    titles = [f"i{number},A film of number {number}" for number in range(12)]
    (tmp_path / "films.csv").write_text("\n".join(["item_id,title", *titles]))
    return path


def plan_of(log: Path, engine: str = "local", **federated) -> Plan:
    own = {"rounds": 2, "clients": 1.0, "engine": engine, "local": {"epochs": 1, "negatives": 4}}
    return Plan.build(
        {
            "data": {"source": str(log), "items": str(log.parent / "films.csv")},
            "model": {"name": "sasrec", "dim": 8, "max_length": 6, "window": 4},
            "federated": own | federated,
        }
    )


def test_views_are_counted_in_the_record_and_kept_with_the_nodes(log, tmp_path):
    run = federate(plan_of(log, method="lumos"), tmp_path / "run")
    views = run.record["federation"]["views"]
    different = {tuple(history) for history in reopen(run)[2].train}  # asked for once each
    assert views == {"made": len(different), "asked": 0, "unmatched": 0, "refused": 0}
    assert (run.path / NODES / "views.sqlite").exists()
    assert not (run.path / "views.sqlite").exists()
    plain = federate(plan_of(log), tmp_path / "plain")
    assert plain.record["federation"]["views"] is None


def test_users_without_views_are_counted(log, tmp_path, caplog):
    """Nobody listens at the address, so nobody has views."""
    model = {"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "m", "tries": 1}
    plan = plan_of(log, method="lumos", views={"kind": "chat", "model": model})
    run = federate(plan, tmp_path / "run")
    about = run.record["federation"]
    assert about["views"] == {"without_views": sum(one["users"] for one in about["rounds"])}
    assert [one["level"] for one in lines(run.path / NODES)][:2] == ["warning", "info"]


class TestDevices:
    """With Flower's messages."""

    @pytest.fixture(autouse=True)
    def _flower(self):
        pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

    def answer(self, order: Order, config: dict, run: Path) -> str:
        """A node's answer: the problem that the server is told, or nothing."""
        from flwr.app import Context, RecordDict
        from flwr.app.user_config import UserConfig

        from foretaste.federated.engines.apps import answered
        from foretaste.federated.engines.flower import PROBLEM, to_records

        context = Context(1, 5, UserConfig(config), RecordDict(), UserConfig({"plan": str(run)}))
        found = answered(to_records(order), context, order.kind, None)
        problem = found.config_records.get(PROBLEM)
        return "" if problem is None else str(problem["text"])

    def order(self, plan: Plan, run) -> Order:
        return Order("train", 1, PROTOCOL, 1.0, plan.method(run.catalog()).start())

    def test_a_device_is_told_whom_it_trains(self, log, tmp_path):
        plan = plan_of(log, "deployment", method="lumos")
        run = prepare(plan, tmp_path / "run")
        own, state = tmp_path / "my.csv", tmp_path / "state"
        own.write_text("user,item,time\na,i3,1\na,unheard,2\na,i4,3\na,i5,4\nb,i7,5\n")
        config = {"plan": str(run.path), "log": str(own), "state": str(state)}
        assert self.answer(self.order(plan, run), config, run.path) == ""
        (first, *_) = lines(state)
        assert (first["able"], first["users"], first["unknown"]) == (1, 2, 1)
        assert (state / "views.sqlite").exists()
        assert {path.name for path in run.path.iterdir()}.isdisjoint({"views.sqlite", "nodes"})

    def test_a_device_that_can_train_nobody_says_so_there(self, log, tmp_path):
        plan = plan_of(log, "deployment")
        run = prepare(plan, tmp_path / "run")
        own, state = tmp_path / "my.csv", tmp_path / "state"
        own.write_text("user,item,time\na,i3,1\nb,i7,5\n")
        config = {"plan": str(run.path), "log": str(own), "state": str(state)}
        assert self.answer(self.order(plan, run), config, run.path) == ""
        (only,) = lines(state)
        assert only["level"] == "warning"
        assert "0 of 2 users can train" in only["said"]

    def test_what_ends_a_simulation_is_told_with_a_reason_of_a_node(
        self, log, tmp_path, monkeypatch
    ):
        run = tmp_path / "run"

        def stopped(**_):
            with node_log(run / NODES):
                LOGGER.warning("node 00001 holds 9, more than federated.secure.range = 8.")
            raise InputError("round 1: 0 clients answered.")

        monkeypatch.setattr("flwr.simulation.run_simulation", stopped)
        said = r"run: the federation stopped. round 1: 0 .* A node said: node 00001 holds 9.*jsonl"
        with pytest.raises(InputError, match=said):
            federate(plan_of(log, "simulation"), run)
        assert not (run / "recipe.toml").exists()

    def test_why_simulated_nodes_failed_is_told_where_they_are(self, log, tmp_path):
        """The server is told that there is a reason; a person at this machine is told which."""
        from foretaste.experiments.loading import load_dataset
        from foretaste.experiments.running import split_dataset
        from foretaste.federated.engines.apps import WITHHELD
        from foretaste.federated.engines.simulation import ended

        plan = plan_of(log, "simulation", views={"kind": "table", "path": "gone"}, method="lumos")
        run = prepare(plan, tmp_path / "run")
        told = self.answer(Order("train", 1, PROTOCOL, 1.0, {}), {"partition-id": 0}, run.path)
        assert told == WITHHELD
        split = split_dataset(load_dataset(plan.recipe.data), plan.recipe.split)
        with pytest.raises(InputError, match=r"A node said: gone: no table.*nodes/log.jsonl"):
            ended(run, plan, split)
