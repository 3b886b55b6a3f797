"""What a run leaves on a machine of the user's own: once all of it is here and verified, its folder there goes."""

from __future__ import annotations

from collections.abc import Mapping

from cloudtrain.core import disk
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.core.text import screen_safe, size
from cloudtrain.core.told import LOG
from cloudtrain.lifecycle.fetch_results import spoilt
from cloudtrain.lifecycle.session import Session
from cloudtrain.store import Run


def verified(run: Run, notes: RunNotes) -> Mapping[str, str] | None:
    """The results (name -> sha256) of a run whose job has ended, where each is here and what it was when it was pulled,
    and its log; else None. `notes` are its journal's."""
    log, pulled = run.ending and run.ending.log_sha256, notes.pulled
    if pulled is None or not log or disk.sha256(run.folder / LOG) != log:
        return None
    return None if spoilt(run, pulled) else {entry.name: entry.sha256 for entry in pulled}


def is_gone(run: Run, notes: RunNotes) -> bool:
    """Whether nothing of the run can be fetched any more: its machine has ended, or no longer keeps it."""
    return run.life is InstanceLife.TERMINATED or notes.gone_there or notes.handed_to is not None


def is_theirs(run: Run, instance: Instance) -> bool:
    """Whether it trained on a machine of the user's own, and not on this computer."""
    return not instance.owned and run.plan.spec.target is not Target.LOCAL


def remove(run: Run, session: Session) -> None:
    """In PULLING, before the machine is let go: remove the run's folder there, if nothing is lost with it, and say so.

    The host looks once more whether it holds anything else. What fails here fails no run: `clean --host` is there.
    """
    notes, instance = session.journal.read(RunNotes), session.instance
    folder, files = notes.on_host, verified(run, notes)
    if not session.context.cleans_hosts or instance is None or not is_theirs(run, instance):
        return
    if not folder or files is None:
        return
    where, left = instance.address or instance.id, f"something of what {run.name} has left there"
    session.journal.write(RunNotes(gone_there=True))
    try:
        found = session.insist(lambda: session.supervisor().clean({folder: (notes.id, files)}, trees=False))
    except CloudtrainError as error:
        session.journal.write(RunNotes(gone_there=False))
        # The answer may be lost where the work was done.
        session.context.emit(Warned(f"{where} may keep {left}: {error.message}", hint="cloudtrain clean --host tells"))
        return
    mine = next((each for each in found.runs if each.name == folder), None)
    if mine is None or mine.removed:
        held = f"its {size(mine.size)} on {where} are removed" if mine else f"{where} has nothing of it any more"
        session.context.emit(Noted(f"{held}: log and results are here, verified"))
        return
    session.journal.write(RunNotes(gone_there=False))
    why = screen_safe(mine.kept or "it was not removed")
    session.context.emit(Noted(f"{where} keeps {left}: {why}. cloudtrain clean --host lists it"))
