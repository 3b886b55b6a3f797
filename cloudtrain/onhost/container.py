"""A job in a container: how docker is told to run it, and how it is ended for good (docs/protocol.md, "Containers").

docker's client is the process that a supervisor sees; what trains is its daemon's, and outlives a killed client.
"""

from __future__ import annotations

import os

from .base import TYPE_CHECKING, UNKILLABLE_S, Failure, Later
from .files import Run, load

if TYPE_CHECKING:
    import shutil
    import subprocess
    from typing import Any, Dict, Iterable, List
else:
    shutil = Later("shutil")
    subprocess = Later("subprocess")

INFO = ["docker", "info", "--format", "{{.ServerVersion}} {{.SecurityOptions}}"]
ANSWERS_S = 20.0


def info() -> str:
    """What docker's daemon says of itself, once it is known that this user may use it."""
    if os.name == "nt" or shutil.which("docker") is None:
        raise Failure("no_docker", "there is no docker")
    try:
        done = subprocess.run(INFO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=ANSWERS_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure("no_docker", "docker gives no answer: %s" % error)
    said, words = (text.decode("utf-8", "replace").strip() for text in (done.stdout, done.stderr))
    if done.returncode or not said[:1].isalnum():  # Without a version: an old client that does not fail.
        denied = "permission denied" in words.lower()
        raise Failure("docker_denied" if denied else "no_docker", words[-1000:] or "docker gives no answer")
    return said


def user() -> str:
    """Whose files a container's are to be. Of a daemon of this user's own its root is this user."""
    try:
        rootless = "rootless" in info()
    except Failure:
        rootless = False  # `docker run` will say what is wrong, in the log.
    return "0:0" if rootless else "%d:%d" % (os.getuid(), os.getgid())


def name_of(run: Run) -> str:
    return "cloudtrain-" + os.path.basename(run.dir)


def argv_of(run: Run, spec: Dict[str, Any], cwd: str, names: Iterable[str]) -> List[str]:
    """The command by docker: the run directory is at its own place in the container, and of the variables `names` the
    values are in no argument. HOME is docker's own here, and a folder there that anybody may write."""
    given = spec["container"]
    return [
        *("docker", "run", "--rm", "--init", "--network=host", "--ipc=host"),
        *(["--gpus=all"] if given.get("gpus") else []),
        *("--name", name_of(run), "--volume", "%s:%s" % (run.dir, run.dir), "--workdir", cwd, "--user", user()),
        "--env=HOME=" + spec["env"].get("HOME", "/tmp"),
        *("--env=" + name for name in [*names, "USER", "LOGNAME"] if name != "HOME"),
        given["image"],
        *spec["argv"],
    ]


def end_container(run: Run) -> None:
    """End the run's container, if it has one: whatever became of the client that started it."""
    if not (load(run.path("spec.json")) or {}).get("container"):
        return
    argv, nothing = ["docker", "rm", "--force", name_of(run)], subprocess.DEVNULL
    try:
        subprocess.run(argv, stdin=nothing, stdout=nothing, stderr=nothing, timeout=UNKILLABLE_S)
    except (OSError, subprocess.SubprocessError):
        pass
