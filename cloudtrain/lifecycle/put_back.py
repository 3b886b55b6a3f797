"""A command goes on without anybody knowing its program: what it had written is put back at its places, and the same
command runs again. Whether it finds its own checkpoint there is the program's business; `[job] resume` can tell it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cloudtrain.core.notes import PutBack, RunNotes
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.text import counted, size
from cloudtrain.lifecycle import checkpoints
from cloudtrain.lifecycle.session import Session
from cloudtrain.run_folder import files
from cloudtrain.source import ignore, tree
from cloudtrain.store import Run
from cloudtrain.transfer import pull

# In an argument: the last of the results that match, by the numbers in their names.
_NEWEST = re.compile(r"\{newest:([^{}]+)\}")


def of(run: Run, notes: RunNotes, *, checked: bool = False) -> PutBack | None:
    """The verified results of a command's `run` that are here, else what it had begun with itself; None: nothing.

    Args:
        notes: the run's journal.
        checked: they are read once more, and only those that are as they arrived count.
    """
    if not run.plan.spec.job.command:
        return None
    known = notes.pulled or notes.trickled
    kept = tuple(one for one in known if not checked or files.is_here(one, run.folder))
    return PutBack(run=run.name, folder=str(run.folder), files=kept) if kept else notes.put_back


def check(job: JobSpec) -> None:
    """The patterns of `[job] resume` can be read.

    Raises:
        UsageError: one cannot.
    """
    for pattern in _NEWEST.findall("\n".join(job.resume_args)):
        ignore.parse(pattern, "resume")


def where(back: PutBack, job: JobSpec) -> str:
    """What happens, in words."""
    total = size(sum(one.size for one in back.files if one.link is None))
    added = arguments(back, job)
    told = f" with {' '.join(added)}" if added else ""
    return f"{counted(len(back.files), 'file')} of its results ({total}) put back, then the same command{told}"


def arguments(back: PutBack, job: JobSpec) -> tuple[str, ...]:
    """`[job] resume`, with names in the place of patterns, as the command sees both; none where nothing matches."""
    below = f"{job.cwd}/" if job.cwd else ""
    known = [one.name[len(below) :] for one in back.files if one.name.startswith(below)]
    found = []
    for word in job.resume_args:
        for pattern in _NEWEST.findall(word):
            rules = ignore.parse(pattern, "resume")
            names = [name for name in known if pull.allowed(rules, name)]
            if not names:
                return ()
            word = word.replace(f"{{newest:{pattern}}}", max(names, key=_by_numbers))
        found.append(word)
    return tuple(found)


def begin(run: Run, session: Session) -> dict[str, Any]:
    """Bring what is to be put back to the run's host; what the supervisor is told of it (docs/protocol.md).

    Raises:
        ConnectionFailed: the link broke, or the host did not take it.
    """
    notes, job = session.journal.read(RunNotes), run.plan.spec.job
    back = of(run, notes, checked=True)
    if back is None:
        return {}
    plain = {one.here: one for one in back.files if one.link is None}
    entries = {name: tree.FileEntry(one.size, one.sha256, 0o644) for name, one in plain.items()}
    told: dict[str, Any] = {"env": {checkpoints.VARIABLE: "1"}, "added": arguments(back, job)}
    if entries:
        folder = Path(back.folder)
        total, anywhere = sum(one.size for one in plain.values()), folder / next(iter(entries))
        sent = tree.Tree(folder, entries, tree.digest_of(entries), total, source=anywhere)
        # A name of its own for each run: nothing else is ever pushed there.
        key = tree.tree_key(run.folder / f"resume-{notes.id or ''}")
        with session.step("results", "put back", limit_s=checkpoints.PUSH_LIMIT_S) as closing:
            pushed = session.push(sent, key)
            closing.append(f"{counted(len(entries), 'file')} of {back.run} put back: {pushed.summary()}")
        links = {one.name: one.link for one in back.files if one.link is not None}
        names = {here: one.name for here, one in plain.items()}
        told["restore"] = {"tree": key, "digest": pushed.digest, "names": names, "links": links}
    return told


def _by_numbers(name: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d{1,15})", name))
