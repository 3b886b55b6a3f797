"""`cloudtrain run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from cloudtrain.cli import run_options as of
from cloudtrain.cli.options import Bell, Json, Keep, OnInterrupt, OnlyPlan, Plain, Profile, Region, Yes, look
from cloudtrain.config import settings as settings_
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Noted
from cloudtrain.core.names import new_name
from cloudtrain.core.spec import check_name
from cloudtrain.store import Store

if TYPE_CHECKING:
    from cloudtrain.config.settings import Settings
    from cloudtrain.core.spec import RunSpec
    from cloudtrain.lifecycle.repeat import Continuation
    from cloudtrain.store import Store

# Flags by what they say: what is trained, and where and within which limits. Each is a setting as well.
_TRAINING = ("model", "epochs", "batch_size", "seed", "lr", "recipe", "job")
_WHERE = (
    *("python", "allow_cpu"),
    *("device", "instance", "identity", "region", "profile", "spot", "spot_restarts", "ami", "subnet"),
    *("login", "tags", "private_ip"),
    *("security_group", "ssh_cidr", "volume_size", "max_time", "max_cost", "grace", "if_i_vanish"),
)
# Flags that choose the place, and are none.
_PLACE = ("local", "host", "host_key", "instance_id", "dry_run")


def run(
    context: typer.Context,
    model: of.Model = None,
    epochs: of.Epochs = None,
    batch_size: of.BatchSize = None,
    seed: of.Seed = None,
    lr: of.Lr = None,
    recipe: of.Recipe = None,
    device: of.Device = None,
    config: of.Config = None,
    job: of.Job = None,
    local: of.Local = False,
    dry_run: of.DryRun = False,
    instance: of.Instance = None,
    instance_id: of.InstanceId = None,
    host: of.Host = None,
    identity: of.Identity = None,
    host_key: of.HostKey = None,
    region: Region = None,
    profile: Profile = None,
    spot: of.Spot = None,
    spot_restarts: of.SpotRestarts = None,
    ami: of.Ami = None,
    login: of.Login = None,
    tags: of.Tags = None,
    subnet: of.Subnet = None,
    private_ip: of.PrivateIp = None,
    security_group: of.SecurityGroup = None,
    ssh_cidr: of.SshCidr = None,
    volume_size: of.VolumeSize = None,
    python: of.Python = None,
    allow_cpu: of.AllowCpu = None,
    fault: of.Fault = None,
    max_time: of.MaxTime = None,
    max_cost: of.MaxCost = None,
    grace: of.Grace = None,
    if_i_vanish: of.IfIVanish = None,
    keep: Keep = None,
    resume: of.Resume = None,
    name: of.Name = None,
    detach: of.Detach = False,
    on_interrupt: of.OnInterrupt = OnInterrupt.DETACH,
    only_plan: OnlyPlan = False,
    yes: Yes = False,
    json: Json = False,
    plain: Plain = False,
    bell: Bell = False,
) -> None:
    """Train: plan, ask, start, follow, pull the results, end what was started.

    What stands after -- is passed on to the training program.
    """
    given = locals()  # every flag by its name
    from cloudtrain.cli import following, request

    if spot and not dry_run and (local or host):
        raise UsageError("--spot is for EC2", hint="leave it out, or use --instance", code="bad_setting")
    if python and (local or dry_run):
        hint = "leave it out, or use --host or --instance"
        raise UsageError("--python is for other machines than this computer", hint=hint, code="bad_setting")
    if resume is not None:
        training = {key: given[key] for key in (*_TRAINING, "config")}
        request.refuse_other_training({**training, "": context.args or None})
    store = Store()
    with following.console(look(json, plain, bell), name or "") as reporter:
        raise typer.Exit(_join_or_begin(given, store, reporter))


def _join_or_begin(given: dict[str, Any], store: Store, reporter: Reporter) -> int:
    """Start the run that the flags `given` ask for, and follow it. Returns the exit code."""
    from cloudtrain.cleanup import debts
    from cloudtrain.cli import following, request

    story, name, only_plan = following.context(store, reporter), given["name"], given["only_plan"]
    on_interrupt = given["on_interrupt"]
    if name and not only_plan and name in store.names() and not store.get(name).state.final:
        # Up-arrow and Enter is safe: the run is joined, not started twice.
        return following.to_the_end(
            store.get(name), story, reporter, join=True, relaunch=True, on_interrupt=on_interrupt
        )
    rest = _rest(given, store, reporter) if given["resume"] is not None else None
    settings, spec = _asked(given, rest, store)
    if not only_plan:
        debts.settle_beside(spec, store, reporter.emit)
    return following.begin(
        spec,
        story,
        reporter,
        settings,
        origins=request.from_files(settings, spec),
        only_plan=only_plan,
        yes=given["yes"],
        detach=given["detach"],
        notes=rest.notes if rest else None,
        checkpoint=(rest.checkpoint, rest.folder) if rest else None,
        on_interrupt=on_interrupt,
    )


def _rest(given: dict[str, Any], store: Store, reporter: Reporter) -> Continuation:
    """What is left to train of the run that `--resume` names."""
    from cloudtrain.lifecycle.repeat import continuation

    name = check_name(given["name"]) if given["name"] else new_name(set(store.names()))
    rest = continuation(store.find(given["resume"]), store, name)
    reporter.emit(Noted(rest.code_from))
    return rest


def _asked(given: dict[str, Any], rest: Continuation | None, store: Store) -> tuple[Settings, RunSpec]:
    """Flags, settings files and environment as one run; of a run that goes on, what no flag says is as it was."""
    from cloudtrain.cli import request

    training, where, place = ({key: given[key] for key in keys} for keys in (_TRAINING, _WHERE, _PLACE))
    if rest is not None:
        elsewhere = any(given[key] for key in ("local", "host", "instance_id", "dry_run", "instance"))
        was = request.of_run(rest.spec, elsewhere=elsewhere)
        where = {key: was.get(key) if value is None else value for key, value in where.items()}
        place = place if elsewhere else request.place_of(rest.spec)
    settings = settings_.load({**where, **training}, config=given["config"])
    args = given["context"].args
    spec = request.build(
        settings,
        store,
        name=rest.spec.name if rest else given["name"],
        **place,
        faults=tuple(given["fault"] or ()),
        args=tuple(args) or settings.get("args") or (),
        keep_s=request.keeping(given["keep"]),
    )
    return settings, request.going_on(spec, rest.spec) if rest else spec
