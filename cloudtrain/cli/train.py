"""`cloudtrain run`."""

from __future__ import annotations

from typing import Annotated

import typer

from cloudtrain.cli.options import Json, Plain, Yes, look


def run(
    context: typer.Context,
    model: Annotated[
        int | None, typer.Option("--model", "-m", help="1, 2 or 3: 13,808, 5,048 or 7,902 parameters.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random number.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Training recipe: best, fast or seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Train on this computer.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run; two words if left out.")] = None,
    job: Annotated[str | None, typer.Option(help="Folder of the training package, instead of the shipped one.")] = None,
    max_time: Annotated[str | None, typer.Option(help="End the run after this time: 45m, 2h.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave once it trains.")] = False,
    only_plan: Annotated[bool, typer.Option("--plan", help="Print the plan and leave; nothing is started.")] = False,
    yes: Yes = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Train: plan, ask, start, follow, pull the results, end what was started."""
    from cloudtrain import settings as settings_
    from cloudtrain.cli import following, request
    from cloudtrain.store import Store

    flags = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "lr": lr,
        "recipe": recipe,
        "device": device,
        "job": job,
        "max_time": max_time,
    }
    settings = settings_.load(flags)
    store = Store()
    with following.console(look(json, plain), name or "") as reporter:
        story = following.context(store, reporter)
        if name and name in store.names() and not store.get(name).state.final:
            # Up-arrow and Enter is safe: the run is joined, not started twice.
            raise typer.Exit(following.to_the_end(store.get(name), story, reporter))
        spec = request.build(
            settings,
            store,
            name=name,
            local=local,
            host=None,
            host_key=None,
            instance_id=None,
            dry_run=False,
            faults=(),
            args=tuple(context.args),
        )
        raise typer.Exit(following.begin(spec, story, reporter, settings, only_plan=only_plan, yes=yes, detach=detach))
