"""Flower's engines give what the federation in this process gives."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from foretaste.errors import InputError
from foretaste.experiments.run_folder import RunFolder
from foretaste.federated.core.checkpoint import CHECKPOINT
from foretaste.federated.core.messages import PROTOCOL, Order, Reply
from foretaste.federated.core.server import Server
from foretaste.federated.engines.deployment import write_app
from foretaste.federated.engines.flower import (
    FlowerFleet,
    _delivery,
    from_records,
    problem,
    size_of,
    to_records,
)
from foretaste.federated.plan import Plan
from foretaste.federated.running import federate, prepare
from foretaste.storage import read_arrays

from .rings import method_of, nodes_of, ring

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def log(tmp_path) -> Path:
    """A CSV of 24 users who walk through a ring of 12 items."""
    rows = [
        (f"u{user}", f"i{(user + step) % 12}", 1_600_000_000 + 1_000 * step + user)
        for user in range(24)
        for step in range(6 + user % 5)
    ]
    path = tmp_path / "ring.csv"
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_csv(path)
    return path


def plan_of(log: Path, engine: str, **federated) -> Plan:
    own = {"rounds": 2, "clients": 0.8, "evaluate_every": 2, "wait": 90, "engine": engine}
    own |= {"local": {"epochs": 2, "negatives": 4}, "client_evaluation": True} | federated
    model = {"name": "sasrec", "dim": 8, "max_length": 6, "window": 4}
    if own.get("method") == "rqfedrec":
        model = {"name": "als", "factors": 8}
    return Plan.build({"data": {"source": str(log)}, "model": model, "federated": own})


def test_messages_pass_as_records_of_flower():
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, np.int64)}
    arrays["x"] = np.array(0.5, np.float64)
    sent = to_records(Order("train", 4, PROTOCOL, 0.5, arrays))
    back = from_records(sent, "train", "here")
    assert isinstance(back, Order)
    assert back[:4] == ("train", 4, PROTOCOL, 0.5)
    assert {name: (one.dtype, one.shape) for name, one in back.arrays.items()} == {
        name: (one.dtype, one.shape) for name, one in arrays.items()
    }
    assert isinstance(from_records(to_records(Reply("train", 1, 1, {})), "train", ""), Reply)
    assert size_of(sent) > 6 * 4 + 2 * 8


def test_records_cut_short_are_told():
    whole = to_records(Reply("train", 1, PROTOCOL, {"w": np.ones((2, 3), np.float32)}))
    cut = whole.array_records["arrays"]["w"]
    cut.data = cut.data[:-5]
    for records in (whole, RecordDict(), RecordDict({"arrays": ArrayRecord()}), problem("no")):
        with pytest.raises(InputError, match="cut short or is not one of ours"):
            from_records(records, "train", "node 7")
    wrong = RecordDict(
        {"arrays": ArrayRecord(), "numbers": MetricRecord(), "about": ConfigRecord({"round": 1})}
    )
    with pytest.raises(InputError, match="protocol"):
        from_records(wrong, "train", "node 7")


def hostile(name: str, reply: RecordDict) -> RecordDict:
    """A reply that a stranger spoilt."""

    def array(data: bytes) -> RecordDict:
        arrays = dict(reply.array_records["arrays"])
        arrays["w"] = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=data)
        reply.array_records["arrays"] = ArrayRecord(arrays)
        return reply

    stream = io.BytesIO()
    if name == "round is infinite":
        reply.config_records["about"]["round"] = float("inf")
    elif name == "an order":
        reply.config_records["about"]["clients"] = 0.5
    elif name == "a problem without words":
        return RecordDict({"problem": ConfigRecord({"why": "x"})})
    elif name == "a problem of ten million letters":
        return problem("A" * 10_000_000)
    elif name == "an array of 36 TiB":
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
        np.lib.format.write_array_header_1_0(stream, header)
        return array(stream.getvalue())
    elif name == "an archive":
        np.savez(stream, a=np.zeros(2))
        return array(stream.getvalue())
    elif name == "a broken archive":
        return array(b"PK\x03\x04" + b"x" * 50)
    elif name == "a pickle":
        return array(b"\x80\x04.")
    return reply


@pytest.mark.parametrize(
    "name",
    [
        "round is infinite",
        "an order",
        "a problem without words",
        "a problem of ten million letters",
        "an array of 36 TiB",
        "an archive",
        "a broken archive",
        "a pickle",
    ],
)
def test_what_a_stranger_sends_is_a_problem_of_that_node_alone(name):
    sent = to_records(Reply("train", 1, PROTOCOL, {"w": np.ones(2, np.float32)}))
    answer = SimpleNamespace(content=hostile(name, sent), has_error=lambda: False)
    found = _delivery("7", "train", answer, 10)  # type: ignore[arg-type]
    assert found.reply is None
    assert 0 < len(found.problem) <= 400


def test_why_a_device_cannot_answer_stays_on_the_device(log, tmp_path, caplog):
    """Not the name of its file, not a cell of its log."""
    from foretaste.federated.engines.apps import WITHHELD, answered

    run = prepare(plan_of(log, "deployment", clients=1.0), tmp_path / "run")
    own = tmp_path / "anna.smith.csv"
    own.write_text("user,item,time\nanna,i3,yesterday at noon\nanna,i4,1600000000\n")
    order = to_records(Order("train", 1, PROTOCOL, 1.0, {}))
    context = context_of({"plan": str(run.path), "log": str(own), "state": str(tmp_path / "s")})
    with caplog.at_level("WARNING"):
        told = answered(order, context, "train", None).config_records["problem"]["text"]
    assert told == WITHHELD
    assert "yesterday at noon" in caplog.text
    other = to_records(Order("train", 1, PROTOCOL + 1, 1.0, {}))
    own.write_text("user,item,time\nanna,i3,1\nanna,i4,2\n")
    told = answered(other, context, "train", None).config_records["problem"]["text"]
    assert "protocol" in str(told)
    assert "anna" not in str(told)


def test_why_a_device_broke_stays_on_the_device_too(tmp_path, caplog, monkeypatch):
    """Flower sends the text of any error that it gets."""
    from foretaste.federated.engines import apps

    def broken(context, folder):
        raise ValueError("anna watched i3")

    monkeypatch.setattr(apps, "node_of", broken)
    order = to_records(Order("train", 1, PROTOCOL, 1.0, {}))
    with caplog.at_level("WARNING"):
        found = apps.answered(order, context_of({}), "train", None)
    assert found.config_records["problem"]["text"] == apps.WITHHELD
    assert "anna watched i3" in caplog.text
    assert "in broken" in caplog.text  # where it broke


class Grid:
    """Flower's way to nodes, which are in this process; some are silent."""

    def __init__(self, nodes, silent=()) -> None:
        self.nodes, self.silent = dict(enumerate(nodes, 1)), silent

    def get_node_ids(self):
        return list(self.nodes)

    def send_and_receive(self, messages, *, timeout):
        self.timeout = timeout
        for one in messages:
            number, kind = one.dst_node_id, one.message_type
            if number not in self.silent:
                reply = self.nodes[number].answer(from_records(one.content, kind, "node"))
                about = SimpleNamespace(src_node_id=number)
                content = to_records(reply)
                yield SimpleNamespace(metadata=about, content=content, has_error=lambda: False)


@pytest.fixture
def no_app(monkeypatch) -> None:
    """Flower makes messages in a running app alone."""
    monkeypatch.setattr("flwr.app.Message", SimpleNamespace)


def over_flower(nodes: int, silent: tuple[int, ...] = (), **config) -> tuple[Grid, Server]:
    """A server over a grid, of 2 users a node."""
    local = {"epochs": 1, "negatives": 4}
    method = method_of(clients=1.0, rounds=1, local=local, wait=7, **config)
    grid = Grid(nodes_of(method, ring(2 * nodes), nodes), silent)
    fleet = FlowerFleet(grid, expected=0, wait=7)  # type: ignore[arg-type]
    return grid, Server(method, fleet, clients=2 * nodes)


@pytest.mark.usefixtures("no_app")
def test_nodes_that_do_not_answer_in_time_are_left_out():
    grid, server = over_flower(3, silent=(2,))
    done = server.step()
    assert (done.users, done.nodes, grid.timeout) == (4, 2, 7)
    assert done.problems == {"node 2: no answer within 7 seconds": 1}
    assert done.wire_down == pytest.approx(3 * done.down)  # it was sent to all of them
    grid, server = over_flower(2, silent=(1, 2), retries=1)
    with pytest.raises(InputError, match=r"0 clients of 0 nodes.*node 2: no answer within 7 sec"):
        server.step()


@pytest.mark.usefixtures("no_app")
def test_late_nodes_are_left_out_over_flower_too():
    _, server = over_flower(20, faults={"late": 0.4})
    done = server.step()
    assert 4 < done.nodes < 18
    assert done.problems == {"too late": 20 - done.nodes}
    assert done.users == 2 * done.nodes


def same_as_local(run: RunFolder, log: Path, folder: Path, **federated) -> None:
    here = federate(plan_of(log, "local", **federated), folder)
    files = [here.path / CHECKPOINT, *here.path.glob("nodes/*/personal-*.safetensors")]
    for file in files:
        one, other = read_arrays(file), read_arrays(run.path / file.relative_to(here.path))
        assert one.keys() == other.keys()
        for name, array in one.items():  # Flower numbers nodes as it likes: another order of sums
            np.testing.assert_allclose(array, other[name], atol=1e-5, err_msg=name)
    rounds = [of.record["federation"]["rounds"] for of in (run, here)]
    for mine, theirs in zip(*rounds, strict=True):
        assert mine["users"] == theirs["users"]
        assert mine["nodes"] == federated.get("nodes", 2)
        assert mine["on_clients"] == pytest.approx(theirs["on_clients"])
        assert mine["up"] > 0.9 * theirs["up"]
        assert mine["down"] > 0.9 * theirs["down"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "federated",
    [
        {"method": "fedavg"},
        {"method": "lumos", "contrast": 0.5, "views": {"kind": "received", "more": 2}},
        # Codes are kept at nodes and come anew after each round; heads stay with users.
        {"method": "rqfedrec", "semantic": "random", "semantic_size": 4, "collaborative_size": 4}
        | {"refresh": 1, "first_mix": 0.5, "sketch": 8},
    ],
    ids=lambda federated: federated["method"],
)
def test_the_simulation_of_flower_gives_the_same(log, tmp_path, federated):
    run = federate(plan_of(log, "simulation", **federated), tmp_path / "simulated")
    assert run.record["federation"]["engine"] == "simulation"
    assert run.finished
    same_as_local(run, log, tmp_path / "here", **federated)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["simulation", "deployment"])
def test_secure_sums_over_flower_are_the_same(log, tmp_path, engine):
    """Four exchanges a round; a deployment starts a process for each message of a node."""
    secure = {"nodes": 3, "secure": {"on": True}, "rounds": 1, "wait": 200}
    secure["client_evaluation"] = engine == "simulation"
    run = federate(plan_of(log, engine, **secure), tmp_path / engine)
    same_as_local(run, log, tmp_path / "here", **secure)
    same_as_local(run, log, tmp_path / "plain", **{**secure, "secure": {"on": False}})
    assert not list(run.path.glob("nodes/*/session.safetensors"))


@pytest.mark.slow
def test_a_deployment_on_loopback_gives_the_same(log, tmp_path):
    """SuperLink and two SuperNodes as processes, on parts of the recipe's data."""
    run = federate(plan_of(log, "deployment"), tmp_path / "deployed")
    assert (run.path / "flower" / "superlink.log").stat().st_size > 0
    same_as_local(run, log, tmp_path / "here")


def test_too_many_nodes_for_a_rehearsal_are_told(log, tmp_path, monkeypatch):
    from foretaste.federated.engines import deployment

    monkeypatch.setattr(deployment, "MOST_NODES", 3)
    with pytest.raises(InputError, match="at most 3"):
        federate(plan_of(log, "deployment", nodes=4), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_a_prepared_folder_holds_an_app_that_flower_builds(log, tmp_path):
    from flwr.cli.build import build_fab_from_disk

    run = prepare(plan_of(log, "deployment"), tmp_path / "run")
    app = write_app(run.path)
    assert len(build_fab_from_disk(app)) > 200
    assert not run.finished
    text = (app / "pyproject.toml").read_text()
    assert str(run.path.resolve()) in text
    connection = tomllib.loads((run.path / "flower" / "config.toml").read_text())["superlink"]
    assert connection[connection["default"]]["address"] == "127.0.0.1:9092"


def context_of(config: dict, run_config: dict | None = None):
    from flwr.app import Context, RecordDict
    from flwr.app.user_config import UserConfig

    return Context(
        run_id=1,
        node_id=5,
        node_config=UserConfig(config),
        state=RecordDict(),
        run_config=UserConfig(run_config or {}),
    )


def test_a_device_with_its_own_log_takes_part(log, tmp_path):
    """Items that the server does not know are left out and counted; nothing is sent of them."""
    from foretaste.federated.core.node import USERS
    from foretaste.federated.engines.apps import node_of

    run = prepare(plan_of(log, "deployment", clients=1.0), tmp_path / "run")
    own = tmp_path / "device.csv"
    own.write_text(
        "user,item,time\n"
        "me,i3,1\nme,nobody-knows,2\nme,i4,3\nme,i5,4\nlonely,i7,5\nnew,unheard,1\nnew,of,2\n"
    )
    config = {"plan": str(run.path), "log": str(own), "state": str(tmp_path / "state")}
    node = node_of(context_of(config), None)
    assert node.users.unknown == 3
    assert sorted(node.users.histories.lengths) == [0, 1, 3]
    reply = node.answer(Order("train", 1, PROTOCOL, 1.0, node.method.start()))
    assert int(reply.arrays[USERS]) == 1


def test_a_node_without_a_plan_or_users_is_told(log, tmp_path):
    from foretaste.federated.engines.apps import node_of

    with pytest.raises(InputError, match="a node needs a plan"):
        node_of(context_of({}), None)
    run = prepare(plan_of(log, "deployment"), tmp_path / "run")
    with pytest.raises(InputError, match="a node needs users"):
        node_of(context_of({"plan": str(run.path)}), None)
    with pytest.raises(InputError, match="no such file|cannot|not found|does not exist"):
        node_of(context_of({"plan": str(run.path), "log": str(tmp_path / "none.csv")}), None)
