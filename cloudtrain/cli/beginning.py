"""What `cloudtrain run` does with its flags: join the run of that name, go on from a checkpoint, or begin anew."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any

from cloudtrain.billing import expiry
from cloudtrain.cleanup import debts
from cloudtrain.cli import following, request
from cloudtrain.cli.options import look
from cloudtrain.cli.run_options import Flags
from cloudtrain.config import env_file
from cloudtrain.config import settings as settings_
from cloudtrain.config.settings import Settings
from cloudtrain.config.table import SETTINGS
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.core import credentials
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Noted
from cloudtrain.core.names import new_name
from cloudtrain.core.spec import RunSpec, check_name
from cloudtrain.lifecycle import takeover
from cloudtrain.lifecycle.repeat import Continuation, continuation
from cloudtrain.store import Run, Store

# Flags that choose the place; they are no settings.
_PLACE = ("local", "host", "instance_id", "dry_run", "host_key")


def run(flags: Flags, given: Mapping[str, Any], words: tuple[str, ...]) -> int:
    """Start the run that is asked for, and follow it. Returns the exit code.

    Args:
        given: settings that have a flag; None: the flag was not given.
        words: a command to run, or arguments of the training program.
    """
    if given["spot"] and not flags.dry_run and (flags.local or flags.host):
        raise UsageError("--spot is for EC2", hint="leave it out, or use --instance", code="bad_setting")
    if given["python"] and (flags.local or flags.dry_run):
        hint = "leave it out, or use --host or --instance"
        raise UsageError("--python is for machines other than this computer", hint=hint, code="bad_setting")
    request.refuse_with_command(words, given)
    if flags.resume is not None:
        training = {name: value for name, value in given.items() if SETTINGS[name].trained}
        request.refuse_other_training({**training, "config": flags.config, "": words or None})
    store = Store()
    with following.console(look(flags.json, flags.plain, flags.bell), flags.name or "") as reporter:
        return _join_or_begin(flags, given, words, store, reporter)


def _join_or_begin(
    flags: Flags, given: Mapping[str, Any], words: tuple[str, ...], store: Store, reporter: Reporter
) -> int:
    env_file.give(flags.env_file)
    story, name = following.context(store, reporter), flags.name
    if name and not flags.only_plan and name in store.names() and not store.get(name).state.final:
        # Up-arrow and Enter is safe: the run is joined, not started twice.
        return following.to_the_end(
            store.get(name), story, reporter, join=True, relaunch=True, on_interrupt=flags.on_interrupt
        )
    rest = _rest(flags, store, reporter)
    settings, spec = _asked(flags, given, words, rest, store)
    env_file.check(flags.env_file, spec)
    if (kept := takeover.waiting(spec, store, time.time())) is not None:
        reporter.emit(Noted(_offered(kept)))
    if not flags.only_plan:
        debts.settle_beside(spec, store, reporter.emit)
    return following.begin(
        spec,
        story,
        reporter,
        settings,
        origins=request.from_files(settings, spec),
        only_plan=flags.only_plan,
        yes=flags.yes,
        detach=flags.detach,
        notes=rest.notes if rest else None,
        checkpoint=(rest.checkpoint, rest.folder) if rest and rest.checkpoint else None,
        on_interrupt=flags.on_interrupt,
    )


def _offered(kept: Run) -> str:
    """That a machine is up which could be taken over, with the command for it, in words."""
    typed, place = sys.argv[1:], sys.argv.index("run") if "run" in sys.argv else 0
    typed = [*typed[:place], "--on", kept.name, *typed[place:]] if place else ["run", "--on", kept.name]
    kind = kept.instance.type if kept.instance else "a machine"
    told = f"{kind} of {kept.name} is up, {expiry.kept_words(kept, time.time())}; to train on it, without a launch"
    return f"{told}: {shlex.join(['cloudtrain', *credentials.typed(typed)])}"


def _rest(flags: Flags, store: Store, reporter: Reporter) -> Continuation | None:
    """What is left to train of the run that `--resume` names."""
    if flags.resume is None:
        return None
    name = check_name(flags.name) if flags.name else new_name(set(store.names()))
    rest = continuation(store.find(flags.resume), store, name)
    reporter.emit(Noted(rest.code_from))
    return rest


def _asked(
    flags: Flags, given: Mapping[str, Any], words: tuple[str, ...], rest: Continuation | None, store: Store
) -> tuple[Settings, RunSpec]:
    """Flags, settings files and environment as one run; of a run that goes on, what no flag says is as it was."""
    place = {name: getattr(flags, name) for name in _PLACE}
    if rest is not None:
        elsewhere = bool(
            given["instance"] or flags.on or flags.local or flags.host or flags.instance_id or flags.dry_run
        )
        was = request.of_run(rest.spec, elsewhere=elsewhere)
        given = {**was, **{name: value for name, value in given.items() if value is not None}}
        place = place if elsewhere else request.place_of(rest.spec)
    settings = settings_.load(given, config=flags.config)
    spec = request.build(
        settings,
        store,
        name=rest.spec.name if rest else flags.name,
        **place,
        faults=tuple(flags.fault or ()),
        words=words,
        keep_s=request.keeping(flags.keep),
        keep_on_failure_s=request.keeping(flags.keep_on_failure, "--keep-on-failure"),
        on=store.find(flags.on) if flags.on is not None else None,
    )
    if flags.on is not None:
        request.refuse_other_machine(given, settings, spec)
    return settings, request.going_on(spec, rest.spec) if rest else spec
