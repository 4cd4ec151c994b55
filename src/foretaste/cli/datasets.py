"""``foretaste datasets``: what is embedded or known."""

from __future__ import annotations

from dataclasses import asdict

from foretaste.cli import options


def datasets(json: options.Json = False) -> None:
    """List data sets with licence and size; embedded ones work by name."""
    from foretaste.cli.display import print_json, print_table
    from foretaste.data.embedded_sets import EMBEDDED_SETS, KNOWN_SETS

    if json:
        print_json(
            {
                "embedded": [asdict(one) for one in EMBEDDED_SETS],
                "known": [asdict(one) for one in KNOWN_SETS],
            }
        )
        return
    rows = [
        [one.name, f"{one.users:,}", f"{one.items:,}", f"{one.interactions:,}", one.licence]
        for one in EMBEDDED_SETS
    ]
    print_table("embedded: --data NAME", ["name", "users", "items", "events", "licence"], rows)
    known = [[one.name, one.home, one.give, one.licence] for one in KNOWN_SETS]
    print_table("to be fetched", ["name", "from", "then --data takes", "licence"], known)
