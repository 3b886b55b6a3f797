"""The small programs that come first in a machine's PATH: `systemctl`, `sudo`, `poweroff`, `python3` and their kin.

They are written anew at each boot, because the machine listens on another port then.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Isolated, without site packages, with the bare sockets under `socket`: starts in a quarter of the time.
_SYSTEMCTL = """#!{python} -IS
import _socket, sys
name = sys.argv[0].replace("\\\\", "/").rsplit("/", 1)[-1].removesuffix(".py")
words = sys.argv[1:] if name.startswith("systemctl") else [name, *sys.argv[1:]]
body = "\\0".join(words).encode()
try:
    link = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    link.settimeout(60)
    link.connect(("127.0.0.1", {port}))
    head = b"POST /{secret}/systemctl HTTP/1.0\\r\\nHost: 127.0.0.1:{port}\\r\\nContent-Length: %d\\r\\n\\r\\n"
    link.sendall(head % len(body) + body)
    answer = b""
    while piece := link.recv(65536):
        answer += piece
except OSError as error:
    sys.exit("Failed to connect to bus: %s" % error)
code, _, text = answer.partition(b"\\r\\n\\r\\n")[2].decode().partition("\\n")
(sys.stderr if code not in ("0", "3") else sys.stdout).write(text)
sys.exit(int(code or 1))
"""

_SUDO = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    --) shift; break ;;
    -u|-g|--user|--group) shift 2 ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
exec "$@"
"""

# A link into a virtual environment would lose the environment, a script that executes the interpreter keeps it.
_PYTHON = """#!/bin/sh
exec '{python}' "$@"
"""


# Windows reads no interpreter off a file's first line, but the shell of Git does.
_BESIDE = """#!/bin/sh
exec '{python}' -IS "$(dirname "$0")/{name}.py" "$@"
"""


def write(folder: Path, *, port: int, secret: str, windows: bool = sys.platform == "win32") -> None:
    """Put the programs into `folder`; they reach the machine's service port with `secret`."""
    folder.mkdir(parents=True, exist_ok=True)
    python = sys.executable.replace("'", "'\\''")
    systemctl = _SYSTEMCTL.format(python=sys.executable, port=port, secret=secret)
    texts = {"sudo": _SUDO, "python3": _PYTHON.format(python=python)}
    # Those that are refused are here as well: the next in PATH are this computer's own, which switch it off.
    for name in ("systemctl", "poweroff", "reboot", "shutdown", "halt"):
        if windows:
            texts[f"{name}.py"] = systemctl.split("\n", 1)[1]
        texts[name] = _BESIDE.format(python=python, name=name) if windows else systemctl
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="\n")
        path.chmod(0o700)
