"""A stub in the place of docker, for there is no engine where these tests run: a program `docker` and, in the tests'
process, what stands for its daemon. A container of it is a process of this computer, with the variables and the folder
that it was given; as a real one it outlives the client that started it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENT = r"""#!%s -IS
import json, os, signal, socket, sys
names = [word[6:] for word in sys.argv if word.startswith("--env=") and "=" not in word[6:]]
given = {name: os.environ[name] for name in names if name in os.environ}
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(%r)
asked = {"argv": sys.argv[1:], "cwd": os.getcwd(), "env": given}
socket.send_fds(daemon, [json.dumps(asked).encode()], [1, 2])
signal.signal(signal.SIGTERM, lambda number, frame: daemon.sendall(b"TERM"))
answer = daemon.recv(100)
sys.exit(int(answer or 125))
"""
_VALUED = ("--name", "--volume", "--workdir", "--user")


@dataclass
class Docker:
    """The daemon.

    Attributes:
        folder: put first on the PATH: it has the client.
        registry: images that can be pulled.
        images: that are here, and the files of the context that they were built of.
        refuses: what it answers to everything; "": it serves.
        asked: arguments of every client, in order.
        containers: that run now, by name.
    """

    folder: Path
    registry: tuple[str, ...] = ()
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    refuses: str = ""
    asked: list[list[str]] = field(default_factory=list)
    containers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def verbs(self, verb: str) -> list[list[str]]:
        return [argv for argv in self.asked if argv[0] == verb]

    def serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(server.accept()[0],), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        data, (out, err), _, _ = socket.recv_fds(client, 1 << 20, 2)
        asked = json.loads(data)
        with client, os.fdopen(out, "w") as said, os.fdopen(err, "w") as complaint, contextlib.suppress(OSError):
            self.asked.append(asked["argv"])
            if self.refuses:
                complaint.write(self.refuses)
                code = 1
            elif asked["argv"][0] == "run":
                code = self._run(client, asked, said, complaint)
            else:
                code = self._do(asked["argv"], Path(asked["cwd"]), said)
            said.flush()
            complaint.flush()
            client.sendall(str(code).encode())

    def _do(self, argv: list[str], cwd: Path, said: Any) -> int:
        verb, last = argv[0], argv[-1]
        if verb == "info":
            said.write("27.1.1 [name=seccomp,profile=builtin]")
        elif verb == "image":
            if last not in self.images:
                return 1
            said.write(" ".join([f"sha256:{'1' * 64}", *([digest(last)] if last in self.registry else [])]))
        elif verb == "pull":
            said.write("latest: Pulling from it\n")
            if last not in (*self.registry, *map(digest, self.registry)):
                said.write(f"Error response from daemon: pull access denied for {last}\n")
                return 1
            self.images[last] = {}
        elif verb == "rm":
            if last in self.containers:
                os.killpg(self.containers[last].pid, signal.SIGKILL)
                self.containers[last].wait(10)
        elif verb == "build":
            text = (cwd / argv[argv.index("--file") + 1]).read_text()
            said.write("#1 [1/2] FROM python\n")
            if failing := [line for line in text.splitlines() if line.startswith("RUN fails: ")]:
                said.write(f"ERROR: {failing[0][11:]}\n")
                return 1
            files = {path.relative_to(cwd).as_posix(): path.read_text() for path in cwd.rglob("*") if path.is_file()}
            self.images[argv[argv.index("--tag") + 1]] = files
        return 0

    def _run(self, client: socket.socket, asked: dict[str, Any], said: Any, complaint: Any) -> int:
        words, given, variables = asked["argv"][1:], {}, {"PATH": f"{self.folder / 'image'}:/usr/bin:/bin"}
        while words[0].startswith("-"):
            option = words.pop(0)
            if option in _VALUED:
                given[option] = words.pop(0)
            elif option.startswith("--env="):
                name, equals, value = option[6:].partition("=")
                variables |= {name: value} if equals else {name: asked["env"][name]} if name in asked["env"] else {}
        # As where a daemon has users of its own: what finds processes by this mark does not find it.
        variables.pop("CLOUDTRAIN_RUN", None)
        if words[0] not in self.images or not given["--workdir"].startswith(given["--volume"].partition(":")[2]):
            complaint.write("docker: Error response from daemon\n")
            return 125
        name, folder = given["--name"], given["--workdir"]
        try:
            self.containers[name] = process = subprocess.Popen(
                words[1:], cwd=folder, env=variables, stdout=said, stderr=complaint, start_new_session=True
            )
        except OSError as error:
            complaint.write(f"docker: {error}\n")
            return 127
        threading.Thread(target=pass_on, args=(client, process), daemon=True).start()
        code = process.wait()
        del self.containers[name]
        return code if code >= 0 else 128 - code


def digest(image: str) -> str:
    """What the registry of the stub knows an image by."""
    return f"{image.partition(':')[0]}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def pass_on(client: socket.socket, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        while client.recv(4):
            process.terminate()


@contextlib.contextmanager
def docker() -> Iterator[Docker]:
    """A daemon and its client; the images have the `python` of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    path = str(folder / "socket")
    (folder / "docker").write_text(CLIENT % (sys.executable, path))
    (folder / "docker").chmod(0o755)
    (folder / "image").mkdir()
    (folder / "image" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "image" / "python").chmod(0o755)
    made = Docker(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(20)
        threading.Thread(target=made.serve, args=(server,), daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for process in list(made.containers.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(folder)
