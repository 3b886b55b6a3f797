"""`cloudtrain run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import (
    Bell,
    Json,
    Keep,
    OnInterrupt,
    OnlyPlan,
    Plain,
    Profile,
    Region,
    Yes,
    complete_run,
    look,
)
from cloudtrain.core.errors import UsageError


def run(
    context: typer.Context,
    model: Annotated[int | None, typer.Option("--model", "-m", help="1, 2 or 3.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random number.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Training recipe: best, fast or seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="File of settings that beats the project's, such as runs/NAME/config.toml.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Folder of a training package, instead of the shipped one.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Train on this computer.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Rehearse the EC2 run here: emulated region, this CPU, nothing is billed."),
    ] = False,
    instance: Annotated[str | None, typer.Option(help="EC2 type to launch; several by comma, in order.")] = None,
    instance_id: Annotated[str | None, typer.Option(help="An instance of yours; it is not terminated.")] = None,
    host: Annotated[str | None, typer.Option(help="A machine that is there: USER@ADDRESS[:PORT].")] = None,
    identity: Annotated[str | None, typer.Option(help="Private key file for --host or --instance-id.")] = None,
    host_key: Annotated[str | None, typer.Option(help="The machine's key, SHA256:... as ssh-keygen -l shows.")] = None,
    region: Region = None,
    profile: Profile = None,
    spot: Annotated[bool | None, typer.Option("--spot/--on-demand", help="Launch a spot instance, or do not.")] = None,
    spot_restarts: Annotated[
        int | None, typer.Option(help="How often it goes on by itself when its spot instance is taken back: 3.")
    ] = None,
    ami: Annotated[str | None, typer.Option(help="Image, instead of the newest Deep Learning AMI.")] = None,
    subnet: Annotated[str | None, typer.Option(help="Subnet, instead of the default VPC's.")] = None,
    security_group: Annotated[str | None, typer.Option(help="Security group, instead of an own one.")] = None,
    ssh_cidr: Annotated[str | None, typer.Option(help="Addresses that may reach port 22, instead of yours.")] = None,
    volume_size: Annotated[int | None, typer.Option(help="Root disk in GiB.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Fault to play in a rehearsal; may be repeated.")] = None,
    max_time: Annotated[str | None, typer.Option(help="End it after this time: 45m, 2h (the default on EC2).")] = None,
    max_cost: Annotated[float | None, typer.Option(help="End it before it costs more US dollars than this.")] = None,
    grace: Annotated[
        str | None, typer.Option(help="After the training has ended, how long the machine waits for you: 10m.")
    ] = None,
    if_i_vanish: Annotated[
        str | None, typer.Option(help="At its limit, with results on its disk: park (the default) or terminate.")
    ] = None,
    keep: Keep = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Go on from this run's checkpoint, here or elsewhere.", autocompletion=complete_run
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; two words if left out.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave once it trains.")] = False,
    on_interrupt: Annotated[
        OnInterrupt,
        typer.Option("--on-interrupt", help="What SIGTERM does, and Ctrl-C without a terminal to ask at."),
    ] = OnInterrupt.DETACH,
    only_plan: OnlyPlan = False,
    yes: Yes = False,
    json: Json = False,
    plain: Plain = False,
    bell: Bell = False,
) -> None:
    """Train: plan, ask, start, follow, pull the results, end what was started.

    What stands after -- is passed on to the training program.
    """
    from cloudtrain.cli import following, leftovers, request
    from cloudtrain.config import settings as settings_
    from cloudtrain.core.events import Noted
    from cloudtrain.core.names import new_name
    from cloudtrain.core.spec import check_name
    from cloudtrain.lifecycle.repeat import continuation
    from cloudtrain.store import Store

    training = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "lr": lr,
        "recipe": recipe,
        "job": job,
    }
    where = {
        "device": device,
        "instance": instance,
        "identity": identity,
        "region": region,
        "profile": profile,
        "spot": spot,
        "spot_restarts": spot_restarts,
        "ami": ami,
        "subnet": subnet,
        "security_group": security_group,
        "ssh_cidr": ssh_cidr,
        "volume_size": volume_size,
        "max_time": max_time,
        "max_cost": max_cost,
        "grace": grace,
        "if_i_vanish": if_i_vanish,
    }
    place = {"local": local, "host": host, "host_key": host_key, "instance_id": instance_id, "dry_run": dry_run}
    if spot and not dry_run and (local or host):
        raise UsageError("--spot is for EC2", hint="leave it out, or use --instance", code="bad_setting")
    if resume is not None:
        request.refuse_other_training({**training, "config": config, "": context.args or None})
    store = Store()
    with following.console(look(json, plain, bell), name or "") as reporter:
        story = following.context(store, reporter)
        if name and not only_plan and name in store.names() and not store.get(name).state.final:
            # Up-arrow and Enter is safe: the run is joined, not started twice.
            raise typer.Exit(
                following.to_the_end(
                    store.get(name), story, reporter, join=True, relaunch=True, on_interrupt=on_interrupt
                )
            )
        rest = None
        if resume is not None:
            new = check_name(name) if name else new_name(set(store.names()))
            rest = continuation(store.find(resume), store, new)
            reporter.emit(Noted(rest.code_from))
            elsewhere = any((local, host, instance_id, dry_run, instance))
            was = request.of_run(rest.spec, elsewhere=elsewhere)
            where = {key: was.get(key) if value is None else value for key, value in where.items()}
            if not elsewhere:
                place = request.place_of(rest.spec)
            name = new
        settings = settings_.load({**where, **training}, config=config)
        spec = request.build(
            settings,
            store,
            name=name,
            **place,  # type: ignore[arg-type]
            faults=tuple(fault or ()),
            args=tuple(context.args) or settings.get("args") or (),
            keep_s=request.keeping(keep),
        )
        if rest is not None:
            spec = request.going_on(spec, rest.spec)
        if not only_plan:
            leftovers.settle_debts_beside(spec, store, reporter.emit)
        code = following.begin(
            spec,
            story,
            reporter,
            settings,
            only_plan=only_plan,
            yes=yes,
            detach=detach,
            notes=rest.notes if rest else None,
            checkpoint=(rest.checkpoint, rest.folder) if rest else None,
            on_interrupt=on_interrupt,
        )
        raise typer.Exit(code)
