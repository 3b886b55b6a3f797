"""The verb `start`: checks the spec, copies the tree to code/, and detaches the supervisor."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time

from .base import HEADER_LIMIT, IN_SCOPE, TREE_WAIT_S, TYPE_CHECKING, Failure, Later, Options, uptime
from .files import Run, check_key, check_name, check_run, hash_file, load, remove_tree, save, stamp
from .locks import held, take
from .processes import end_processes

if TYPE_CHECKING:
    import subprocess
    import threading
    from typing import Any, Dict, Iterator, List, Optional, Tuple
else:
    subprocess = Later("subprocess")
    threading = Later("threading")


def do_start(options: Options) -> Dict[str, Any]:
    run = Run(options.run)
    spec = check_spec(sys.stdin.buffer.read(HEADER_LIMIT))
    secrets = spec.pop("secrets", {})  # from here on in memory alone
    if options.id is not None:
        spec["id"] = options.id
    os.makedirs(run.dir, mode=0o700, exist_ok=True)
    lock = take(run.path("lock"), byte=1) if os.name == "nt" else take(run.path("lock"))
    if lock is None:
        pid = job_pid(run)  # By then its spec is there, too.
        check_run(run, options.id, spec["digest"])
        return {"state": "running", "started": False, "pid": pid}
    try:
        exited = load(run.path("exit.json")) is not None
        # Without job.json an earlier start was cut short before anything ran: this one begins anew.
        began = exited or os.path.exists(run.path("job.json"))
        check_run(run, options.id, spec["digest"] if began else None)
        if exited:
            return {"state": "exited", "started": False, "pid": job_pid(run)}
        if began:
            end_processes(run, grace=0.0)
            return {"state": "lost", "started": False, "pid": job_pid(run)}
        if os.path.exists(run.path("stop.json")):
            raise Failure("stopped", "this run was asked to stop before it began")
        make_code(run, spec)
        save(run.path("spec.json"), spec)
        return {"started": True, **spawn_supervisor(run, lock, IN_SCOPE if spec.get("scope") else [], secrets)}
    finally:
        os.close(lock)


def job_pid(run: Run) -> Optional[int]:
    # A start that is under way elsewhere writes it in a moment.
    for _ in range(100):
        job = load(run.path("job.json"))
        if (job and job["job"]) or not held(run.path("lock")):
            return job["job"] if job else None
        time.sleep(0.05)
    return None


def check_spec(raw: bytes) -> Dict[str, Any]:
    try:
        spec = json.loads(raw.decode("utf-8"))
        argv, env, lasts, grace = spec["argv"], spec.get("env") or {}, spec.get("lasts"), spec.get("grace", 10)
        variables = [*env.items(), *spec.get("secrets", {}).items()]
        good = (
            spec["v"] == 1
            and isinstance(argv, list)
            and bool(argv)
            and all(isinstance(part, str) and "\0" not in part for part in argv)
            and all(isinstance(k, str) and isinstance(v, str) and "\0" not in k + v for k, v in variables)
            and (lasts is None or isinstance(lasts, (int, float)))
            and isinstance(spec.get("at", 0.0), (int, float))
            and isinstance(grace, (int, float))
            and isinstance(spec["digest"], str)
            and isinstance(spec.get("most") or 0, (int, float))
            and isinstance(spec.get("lingers", False), bool)
            and isinstance(spec.get("spot", False), bool)
            and isinstance(spec.get("scope", False), bool)
            and all(isinstance(spec.get(name) or "", str) for name in ("cwd", "bin", "imports", "results"))
            and isinstance(spec.get("folders") or [], list)
            and re.match(r"\w", (spec.get("container") or {"image": "none"})["image"])
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("bad_spec", "the spec cannot be read: %s" % error)
    if not good:
        raise Failure("bad_spec", "the spec is not of the form that this supervisor knows")
    check_key(spec["tree"])
    for name in (*(spec.get(key) for key in ("cwd", "imports", "results")), *(spec.get("folders") or ())):
        if name:
            check_name(name)
    try:
        check_restore(spec)
    except (KeyError, TypeError, AttributeError) as error:
        raise Failure("bad_spec", "what is to be restored cannot be read: %s" % error)
    ends = None if lasts is None else uptime() + lasts
    # Of the client's clock, which is told with the spec: its time when this machine had been up for 0 s.
    zero = spec.get("at", time.time()) - uptime()
    return {**spec, "env": env, "ends": ends, "grace": grace, "zero": zero}


def make_code(run: Run, spec: Dict[str, Any]) -> None:
    """Copy the tree to code/, checking every byte on the way; where new files in it are results, keep what was sent.
    What is restored is none of that: it counts as made by the run."""
    aside = run.path("code.part")
    try:
        remove_tree(aside)
        remove_tree(run.path("code"))
        os.mkdir(aside)
        sent = {}
        for name, sha256, target in copy_tree(run, spec, aside, {}):
            if spec.get("results"):
                sent[name] = [sha256, *stamp(os.lstat(target))]
        if sent:
            save(run.path("sent.json"), {"v": 1, "files": sent})
        for name in spec.get("folders") or ():
            os.makedirs(os.path.join(aside, name), exist_ok=True)
        restore = spec.get("restore")
        if restore:
            top = os.path.join(aside, spec["results"])
            for _ in copy_tree(run, restore, top, restore["names"]):
                pass
            for name, to in restore["links"].items():
                os.symlink(os.path.relpath(to, os.path.dirname(name)), make_room(top, name))
        os.replace(aside, run.path("code"))
    finally:
        remove_tree(aside)


def copy_tree(run: Run, given: Dict[str, Any], top: str, names: Dict[str, str]) -> Iterator[Tuple[str, str, str]]:
    """Copy a tree of the host to the folder `top`; name, sha256 and path of each file. `names`: what each is called
    there, where that is not its name in the tree."""
    folder = os.path.join(run.workdir, "trees", given["tree"])
    if not os.path.isdir(folder):
        raise Failure("tree_changed", "the host has no such tree")
    lock = take(os.path.join(folder, "lock"), wait=TREE_WAIT_S, shared=True)
    if lock is None:
        raise Failure("tree_busy", "another push to the same tree has been under way for %d s" % TREE_WAIT_S)
    try:
        tree = load(os.path.join(folder, "tree.json"))
        if tree is None or tree["digest"] != given["digest"]:
            raise Failure("tree_changed", "the tree on the host is not the one that was sent")
        for name, (size, sha256, mode) in tree["files"].items():
            source, target = os.path.join(folder, "files", name), make_room(top, names.get(name, name))
            try:
                same = stat.S_ISREG(os.lstat(source).st_mode) and hash_file(source, target) == (size, sha256)
            except FileNotFoundError:
                same = False
            if not same:
                os.unlink(os.path.join(folder, "tree.json"))
                raise Failure("tree_changed", "%s on the host was changed since it was sent" % name)
            os.chmod(target, mode | 0o200)
            yield name, sha256, target
    finally:
        os.close(lock)


def make_room(top: str, name: str) -> str:
    """The path of `name` below `top`, with the folders to it and nothing there: a run may have put a file where the
    code had a folder, or the other way round."""
    path = top
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if not os.path.isdir(path) or os.path.islink(path):
            remove_tree(path)
            os.makedirs(path)
    path = os.path.join(path, name.split("/")[-1])
    remove_tree(path)
    return path


def check_restore(spec: Dict[str, Any]) -> None:
    """What is restored lies below the folder of the results, by plain names."""
    restore = spec.get("restore")
    if restore is not None:
        check_key(restore["tree"])
        for name in (spec["results"], *restore["names"].values(), *restore["links"], *restore["links"].values()):
            check_name(name)


def spawn_supervisor(run: Run, lock: int, within: List[str], secrets: Dict[str, str]) -> Dict[str, Any]:
    """Detach the supervisor; its answer. It gets `secrets` by a pipe: no file, argument or environment has them."""
    # From beside this package, where the verb itself came from.
    program = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "supervise.py")
    argv = within + [sys.executable, "-I", "-S", program, "_supervise", "--run", run.dir, "--lock", str(lock)]
    options: Dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": run.dir}
    log = run.path("supervisor.log")
    with open(log, "ab") as errors:
        if sys.platform == "win32":
            # A console of its own that is not shown: the user's can close, and Ctrl-Break can still be sent to the job.
            hidden, group, breakaway = 0x08000000, 0x200, 0x01000000
            try:
                process = subprocess.Popen(argv, stderr=errors, creationflags=hidden | group | breakaway, **options)
            except OSError:
                process = subprocess.Popen(argv, stderr=errors, creationflags=hidden | group, **options)
        else:
            process = subprocess.Popen(argv, stderr=errors, start_new_session=True, pass_fds=(lock,), **options)
    lines: List[bytes] = []
    pipe, handed = process.stdout, process.stdin
    assert pipe is not None and handed is not None
    try:
        with handed:
            handed.write(json.dumps(secrets).encode())
    except OSError:
        pass  # It has ended already, and says why below.
    reader = threading.Thread(target=lambda: lines.append(pipe.readline()), daemon=True)
    reader.start()
    reader.join(60.0)
    # It outlives this process on purpose; without this, Python would warn that it was not waited for.
    process.returncode = 0
    if not lines or not lines[0]:
        with open(log, "rb") as file:
            tail = file.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        raise Failure("start_failed", "the supervisor did not start: %s" % (tail[-1] if tail else "it gave no reason"))
    pipe.close()
    answer: Dict[str, Any] = json.loads(lines[0].decode())
    return answer
