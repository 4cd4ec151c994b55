"""``foretaste recommend``: a list for a history typed as titles or ids, or for a known user."""

from __future__ import annotations

from typing import Annotated

import typer

from foretaste.cli import options


def recommend(
    run: options.Run,
    history: Annotated[
        list[str] | None,
        typer.Option(
            "--history", help='Titles, oldest first: "The Matrix; Inception". Repeatable.'
        ),
    ] = None,
    history_ids: Annotated[
        list[str] | None,
        typer.Option("--history-ids", help="Item ids, oldest first: 12,5,99. Repeatable."),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="A user id of the log.")] = None,
    k: Annotated[int, typer.Option("-k", help="Length of the list.")] = 10,
    candidates: Annotated[
        list[str] | None,
        typer.Option("--candidates", help="Item ids that may be recommended. Repeatable."),
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Allow items of the history.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which codes, and which events led to them.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Recommend items. Without a history it recommends what is popular."""
    from foretaste.cli.display import print_json
    from foretaste.experiments.answering import Question, answer
    from foretaste.experiments.run_folder import RunFolder

    question = Question(
        titles=history or [],
        item_ids=history_ids or [],
        user=user,
        k=k,
        candidates=candidates,
        exclude="none" if include_seen else "seen",
        explain=explain,
    )
    found = answer(RunFolder.open(run), question)
    if json:
        print_json(found.to_json())
    else:
        show_answer(found)


def show_answer(found) -> None:
    """The list, and how the question was understood."""
    from foretaste.cli.display import print_table, say

    for match in found.matched:
        typed = "" if match.typed == match.title else f'"{match.typed}" is '
        say(f"  read {typed}{match.title} [{match.item_id}]")
    for unknown in found.unknown:
        say(f"  not in the catalog, left out: {unknown}")
    if not found.history:
        say("No history, so these are popular items.")
    rows = [
        [str(place), line.title, line.item_id, f"{line.score:.3f}"]
        for place, line in enumerate(found.items, 1)
    ]
    print_table("", ["#", "title", "id", "score"], rows)
    for reason in found.reasons or []:
        show_reason(reason)


def show_reason(reason) -> None:
    """The codes of an item in words, what thoughts pointed at, and the events that count most."""
    from foretaste.cli.display import say

    say(f"\n{reason.title} [{reason.item_id}]")
    for code in reason.codes:
        thought = ""
        if code.thought is not None:
            thought = f"thinks of {code.thought} ({code.certainty:.0%}), writes "
        say(f"  level {code.level + 1}: {thought}code {code.code}: {code.words}")
    counted = [event for event in reason.events if event.fall > 0][:3]
    if counted:
        because = "; ".join(f"{event.title} ({event.fall:+.2f})" for event in counted)
        say(f"  because of {because}")
