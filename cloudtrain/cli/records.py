"""`cloudtrain verify` and `rerun`: what the record of a run is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import EnvFile, Json, OnlyPlan, Plain, RunName, RunOrFolder, Yes, look
from cloudtrain.config import env_file as env_file_
from cloudtrain.config import settings
from cloudtrain.console.answer import Answer
from cloudtrain.console.pages import records
from cloudtrain.core.errors import ArtifactRefused
from cloudtrain.core.events import Noted
from cloudtrain.core.names import new_name
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import check_name
from cloudtrain.report import sources
from cloudtrain.run_folder import verify as verify_
from cloudtrain.run_folder.verify import Verification
from cloudtrain.store import Store


def verify(run: RunOrFolder = None, json: Json = False) -> Answer:
    """Check a run's files against its receipt, and the receipt against the list of runs. Changes nothing."""
    store = Store()
    place = sources.meant(run, store)
    found = verify_.check(place if isinstance(place, Path) else place.folder, store)
    return Answer(found.to_dict, lambda _: records.lines(found), run=found.run, error=_wrong(found))


def _wrong(found: Verification) -> ArtifactRefused | None:
    if not found.wrong:
        return None
    named = ", ".join(check.subject for check in found.wrong[:3])
    more = f" and {len(found.wrong) - 3} more" if len(found.wrong) > 3 else ""
    return ArtifactRefused(
        f"not matching the receipt of {found.run}: {named}{more}",
        hint=_mending(found),
        consequence="nothing was changed",
        code="verify_failed",
    )


def _mending(found: Verification) -> str:
    """The next command. Results are fetched again, and a receipt that lags behind is written again, by `pull`."""
    subjects = {check.subject for check in found.wrong}
    if found.known and subjects & found.results:
        return f"cloudtrain pull {found.run} fetches its results again if its machine still exists"
    if found.known and subjects == {"registry"}:
        return f"cloudtrain pull {found.run} writes the receipt again, from the list of runs"
    return "restore what differs from a copy"


def rerun(
    run: RunName = None,
    name: Annotated[str | None, typer.Option(help="Name of the new run.", show_default="two words")] = None,
    env_file: EnvFile = None,
    only_plan: OnlyPlan = False,
    yes: Yes = False,
    json: Json = False,
    plain: Plain = False,
) -> int:
    """Repeat a run from its own record: same settings, seed and place, and exactly the code that it ran."""
    from cloudtrain.cleanup import debts
    from cloudtrain.cli import following
    from cloudtrain.lifecycle.repeat import repetition

    store = Store()
    row = store.find(run)
    new = check_name(name) if name else new_name(set(store.names()))
    with following.console(look(json, plain), new) as reporter:
        env_file_.give(env_file)
        again = repetition(row, store, new)
        env_file_.check(env_file, again.spec)
        reporter.emit(Noted(again.code_from))
        if not only_plan:
            debts.settle_beside(again.spec, store, reporter.emit)
        return following.begin(
            again.spec,
            following.context(store, reporter),
            reporter,
            settings.load({}),
            only_plan=only_plan,
            yes=yes,
            detach=False,
            notes=RunNotes(rerun_of=again.origin),
        )
