"""The environment of a run, made on its host: what is there where that does, else one below `envs/`, kept for the next.

What a machine has of torch is kept wherever it satisfies what is asked: it is large, and built for the machine's
driver. Then the new environment lies over the machine's own and sees all of it, and only the rest is installed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from cloudtrain.core.environment import Environment
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import Emit, StepDone, StepStarted
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.text import counted
from cloudtrain.environment import conda, container, failures
from cloudtrain.environment.asked import Asked, check, imports, look, suits
from cloudtrain.environment.interpreter import Interpreter, examine
from cloudtrain.environment.lock import Lock, Question, ask_here, resolve
from cloudtrain.environment.plan import wanted
from cloudtrain.environment.there import LIMIT_S, have_built, uv_tool
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Transport


@dataclass(frozen=True, slots=True)
class Before:
    """An environment that was made for the same program, and the text of its lock."""

    environment: Environment
    lock: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be made: the packages, the Python (a path, or a version that uv finds or fetches), and the folders of
    the machine's own packages that it is to see."""

    asked: Asked
    lock: Lock
    python: str
    platform: str
    extends: tuple[str, ...] = ()
    has: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of what makes it what it is."""
        decides = [1, self.lock.text, self.lock.python, self.python, self.platform, self.extends, dict(self.has)]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]


def prepare(
    transport: Transport,
    supervisor: Supervisor,
    python: str,
    job: JobSpec,
    *,
    here: bool,
    emit: Emit,
    before: Before | None = None,
) -> tuple[Environment, str]:
    """The environment on the host for `job`, and the text of its lock, "" where it is taken as it was there.

    Args:
        python: the interpreter there that the probe has chosen.
        here: the host is this computer, whose user has an environment already.
        before: what the same program had on another machine; it gets the same packages where that can be.

    Raises:
        UsageError: what is asked for cannot be had.
        ConnectionFailed: it could not be made on the machine; the code says why.
    """
    made, text = _prepared(transport, supervisor, python, job, here, emit, before)
    return replace(made, imports=imports(job)), text


def _prepared(
    transport: Transport,
    supervisor: Supervisor,
    python: str,
    job: JobSpec,
    here: bool,
    emit: Emit,
    before: Before | None,
) -> tuple[Environment, str]:
    asked = look(job)
    if asked and asked.container:
        known = before.lock if before and before.environment.source == asked.source else ""
        return container.prepare(supervisor, asked, known, emit)
    unasked = job.environment is None and not job.packages
    if not job.command and (asked is None or (here and unasked)):
        return Environment(python=python), ""
    found = examine(transport, python, asked.direct if asked else ())
    if found is None:
        raise failures.not_built(f"{python} on the machine gives no answer")
    lenient = (here or not job.command) and job.environment is None
    if asked is not None and lenient and asked.lock is None and not asked.options:
        # What is there does, and gets what it lacks beside it.
        asked = replace(asked, files=(), packages=found.lacks)
    if asked is not None and asked.conda and not lenient:
        return conda.make(transport, supervisor, asked, found.platform, emit)
    if asked is None or (lenient and not found.lacks):
        return _as_it_is(found), ""
    wants = _again(asked, found, before) if before else None
    if wants is None:
        wants = _wanted(asked, found, supervisor, given=job.python is not None, here=here, emit=emit)
    if wants.extends and not wants.lock.versions:
        return _as_it_is(found), ""  # it has all that is asked for
    path, scripts = _made(supervisor, wants, here, emit)
    text = wants.lock.text
    own = wants.lock.versions.get("torch")
    torch = own or (found.has.get("torch") if wants.extends else None)
    made = Environment(
        python=path,
        bin=scripts,
        source=asked.source,
        key=wants.key,
        version=wants.lock.python,
        system=_system(found),
        torch=torch,
        torch_of=None if torch is None else "lock" if own else "machine",
        packages=len(wants.lock.versions),
        lock_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    return made, text


def _as_it_is(found: Interpreter) -> Environment:
    torch = found.has.get("torch")
    return Environment(
        python=found.python,
        bin=found.bin,
        version=found.version,
        torch=torch,
        torch_of="machine" if torch else None,
    )


def _again(asked: Asked, found: Interpreter, before: Before) -> _Wanted | None:
    """The packages of an earlier machine; None: this one has another Python, system or torch."""
    was, lock = before.environment, Lock(before.lock, before.environment.version)
    own = was.version == found.version
    if was.source != asked.source or not before.lock or not (own or was.version == wanted(asked)):
        return None
    if was.system != _system(found) or hashlib.sha256(before.lock.encode()).hexdigest() != was.lock_sha256:
        return None
    if not own or was.torch_of == "lock":
        return _Wanted(asked, lock, found.python if own else was.version, found.platform)
    same = was.torch == found.has.get("torch")
    return _Wanted(asked, lock, found.python, found.platform, found.sites, found.has) if same else None


def _system(found: Interpreter) -> str:
    """Without the version of its C library, of which a lock names the files for each."""
    return found.platform.partition("_2_")[0]


def _wanted(
    asked: Asked, found: Interpreter, supervisor: Supervisor, *, given: bool, here: bool, emit: Emit
) -> _Wanted:
    """What is to be made; `given`: the Python is the one that the user has named."""
    own = suits(found.version, asked.requires)
    if given and not own:
        raise UsageError(
            f"{found.python} is Python {found.version}, and {asked.source} asks for {asked.requires}",
            hint="leave out --python, or name another",
            consequence="nothing has trained",
            code="bad_python",
        )
    version = found.version if own else wanted(asked)
    have = found.has if own else {}
    if not here:
        check(asked)
    try:
        builds = here and bool(asked.runs_code)
        lock, keeps = resolve(asked, version, found.platform, have, partial(ask_here, builds=builds))
    except UsageError as error:
        if not failures.needs_builds(error):
            error.consequence = "nothing has trained"
            raise
        # A package that comes as source alone is run to tell what it needs: where it will run anyway.
        there = partial(_ask_there, supervisor, found, emit)
        lock, keeps = resolve(asked, version, found.platform, have, partial(ask_here, builds=True) if here else there)
    if not own:
        return _Wanted(asked, lock, version, found.platform)
    if "torch" in lock.versions and not keeps:
        return _Wanted(asked, lock, found.python, found.platform)
    kept = lock.without_torch(have) if "torch" in lock.versions else lock
    return _Wanted(asked, kept, found.python, found.platform, found.sites, have)


def _ask_there(supervisor: Supervisor, found: Interpreter, emit: Emit, question: Question) -> tuple[int, str, str]:
    """The uv of the machine answers."""
    emit(StepStarted("packages", f"resolving {question.asked.source} on the machine", LIMIT_S))
    files = {**question.asked.sent(), **question.beside}
    argv = [*question.argv, "--quiet", "--color", "never", "--python", found.python]
    resolves = {"files": files, "argv": argv}
    request = {"v": 1, "key": "0" * 16, "python": found.python, "extends": [], "resolve": resolves}
    try:
        answer = have_built(supervisor, {**request, "tool": uv_tool(found.platform, False)}, found.platform, emit)
    except ConnectionFailed as error:
        if error.code in ("silent", "connection"):
            raise
        return 1, "", error.detail or error.message
    return 0, str(answer.get("lock") or ""), ""


def _made(supervisor: Supervisor, wants: _Wanted, here: bool, emit: Emit) -> tuple[str, str]:
    """Paths of its interpreter and of the folder of its programs."""
    began, packages = time.monotonic(), counted(len(wants.lock.versions), "package")
    tool = uv_tool(wants.platform, here)
    question = {"v": 1, "key": wants.key, "python": wants.python, "extends": wants.extends, "tool": tool}
    there = supervisor.environment(question)
    if there.ready:
        emit(StepDone("packages", f"{packages} of {wants.asked.source}, as an earlier run had them (envs/{wants.key})"))
        return there.python, there.bin
    torch = ", with the machine's torch" if "torch" in wants.has else ""
    emit(StepStarted("packages", f"{packages} of {wants.asked.source}{torch}", LIMIT_S))
    have_built(supervisor, {**question, "lock": wants.lock.text}, wants.platform, emit)
    taken = time.monotonic() - began
    kept = f"{packages} installed, kept for the next run on this machine (envs/{wants.key})"
    emit(StepDone("packages", kept, taken))
    return there.python, there.bin
