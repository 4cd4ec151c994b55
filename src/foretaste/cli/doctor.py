"""``foretaste doctor``: what is installed, what is missing, how fast this machine is."""

from __future__ import annotations

from foretaste.cli import options


def doctor(json: options.Json = False) -> None:
    """Look at this installation and this machine."""
    from foretaste.cli.display import print_json, print_table
    from foretaste.experiments.examining import examine

    found = examine()
    if json:
        print_json(found)
        return
    rows = [[name, version] for name, version in found["versions"].items()]
    rows += [
        [f"extra: {name}", "installed" if there else f'missing: pip install "foretaste[{name}]"']
        for name, there in found["extras"].items()
    ]
    rows += [[name, str(value)] for name, value in found["machine"].items()]
    print_table("", ["what", "found"], rows)
