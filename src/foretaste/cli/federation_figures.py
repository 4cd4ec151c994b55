"""A federation in the terminal: what leaves a device, and what the rounds came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foretaste.cli.display import print_json, say

if TYPE_CHECKING:
    from foretaste.data.dataset import Dataset
    from foretaste.experiments.run_folder import RunFolder
    from foretaste.federated.core.boundary import Declared
    from foretaste.federated.plan import Plan


def print_privacy(plan: Plan, dataset: Dataset, as_json: bool) -> None:
    """What would leave a device, come to it and stay on it."""
    from foretaste.experiments.running import split_dataset
    from foretaste.federated.explaining import explain

    found = explain(plan.method(split_dataset(dataset, plan.recipe.split).catalog))
    if as_json:
        print_json(found.to_json())
        return
    _print_list("Leaves a device, in a round it takes part in", found.up)
    _print_list("Comes to a device", found.down)
    if found.personal:
        _print_list("Stays on the device", found.personal)
    for sentence in found.sentences:
        say(sentence)


def print_federation(folder: RunFolder, quiet: bool, as_json: bool) -> None:
    """Figures of a finished run, with bytes and epsilon."""
    from foretaste.cli.figures import print_evaluation
    from foretaste.reporting.federation import figures_kept, of_views

    about = folder.record["federation"]
    rounds = about["rounds"]
    trained = [one for one in rounds if one["users"]]
    down, up = (sum(one[name] for one in trained) / max(len(trained), 1) for name in ("down", "up"))
    if as_json:
        brief = {name: value for name, value in about.items() if name != "rounds"}
        sizes = {"bytes_down": down, "bytes_up": up, "rounds": len(rounds)}
        print_json({"run": str(folder.path), **brief, **sizes, **folder.metrics["test"]})
        return
    if quiet:
        return
    print_evaluation(folder.metrics["test"])
    say(
        f"{about['method']}: {len(rounds)} rounds over {about['clients']:,} clients on "
        f"{about['nodes']:,} nodes ({about['engine']}); a client receives {down:,.0f} bytes a "
        f"round and sends {up:,.0f}."
    )
    for told in (figures_kept(about), of_views(about)):
        if told:
            say(f"{told}.")
    if about["epsilon"] is not None:
        say(f"Privacy of a user: epsilon {about['epsilon']:.2f} at delta {about['delta']:g}.")
    say(f"{folder.path} is ready. Try: foretaste report {folder.path}")


def print_prepared(folder: RunFolder, quiet: bool, as_json: bool) -> None:
    """What to do with a folder that was prepared for a deployment."""
    from foretaste.federated.engines.deployment import command_of

    if as_json:
        app = folder.path / "flower" / "app"
        print_json({"run": str(folder.path), "app": str(app), "command": command_of(folder.path)})
    elif not quiet:
        say(f"{folder.path} is prepared. Give nodes its recipe.toml, federation.toml and")
        say("catalog.parquet; start a SuperLink and SuperNodes, and run the rounds with:")
        say(command_of(folder.path))
        say(f"Then evaluate with: foretaste resume {folder.path}")


def _print_list(title: str, declared: Sequence[Declared]) -> None:
    """What arrays are and why they travel, each with its type, shape and bytes below."""
    whole, a_row = (sum(one.bytes for one in declared if one.ragged == of) for of in (False, True))
    size = f"{whole:,} bytes of values" + (f", and {a_row:,} a row" if a_row else "")
    say(f"{title}: {size}")
    alike: dict[tuple[str, str], list[Declared]] = {}
    for one in declared:
        alike.setdefault((one.meaning, one.reason), []).append(one)
    kinds = {one.name: f"{one.dtype} {list(one.shape)}" for one in declared}
    name, kind = (max(map(len, texts), default=0) for texts in (kinds, kinds.values()))
    for (meaning, reason), arrays in alike.items():
        say(f"\n  {meaning}\n  why: {reason}")
        for one in arrays:
            sized = f"{one.bytes:,} bytes{' a row' * one.ragged}"
            say(f"    {one.name:{name}}  {kinds[one.name]:{kind}}  {sized}")
    say("")
