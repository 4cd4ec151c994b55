"""``foretaste resume``: go on with a run that was cut off."""

from __future__ import annotations

from foretaste.cli import options


def resume(run: options.Run, quiet: options.Quiet = False, json: options.Json = False) -> None:
    """Go on from the last whole epoch or round; weights become those of an uninterrupted run."""
    from foretaste.cli.display import print_json, progress, say
    from foretaste.cli.figures import print_evaluation
    from foretaste.experiments.machine import main_process
    from foretaste.experiments.run_folder import RunFolder
    from foretaste.experiments.running import resume as resume_run

    finished = RunFolder.open(run).finished
    if (run / "federation.toml").exists():
        from foretaste.cli.federation_figures import print_federation
        from foretaste.federated.running import go_on

        print_federation(go_on(run, progress=progress(quiet, json)), quiet, json)
        return
    folder = resume_run(run, progress=progress(quiet, json))
    if finished and not json:
        say(f"{run}: the run is finished already.")
        return
    if not main_process() or (quiet and not json):
        return
    if json:
        print_json({"run": str(folder.path), **folder.metrics["test"]})
    else:
        print_evaluation(folder.metrics["test"])
        for note in folder.record["fit"]["notes"]:
            say(note)
