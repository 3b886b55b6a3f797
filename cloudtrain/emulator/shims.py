"""The small programs that come first in a machine's PATH: `systemctl`, `sudo`, `poweroff`, `python3` and their kin.

They are written anew at each boot, because the machine listens on another port then.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Isolated and without site packages: starts in a third of the time.
_SYSTEMCTL = """#!{python} -IS
import socket, sys
name = sys.argv[0].replace("\\\\", "/").rsplit("/", 1)[-1]
words = sys.argv[1:] if name.startswith("systemctl") else [name, *sys.argv[1:]]
body = "\\0".join(words).encode()
try:
    link = socket.create_connection(("127.0.0.1", {port}), timeout=60)
    head = b"POST /systemctl HTTP/1.0\\r\\nX-Machine: {secret}\\r\\nContent-Length: %d\\r\\n\\r\\n"
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


def write(folder: Path, *, port: int, secret: str) -> None:
    """Put the programs into `folder`; they reach the machine's service port with `secret`."""
    folder.mkdir(parents=True, exist_ok=True)
    systemctl = _SYSTEMCTL.format(python=sys.executable, port=port, secret=secret)
    if sys.platform == "win32":
        for name in ("systemctl", "poweroff", "reboot", "shutdown", "halt"):
            (folder / f"{name}.py").write_text(systemctl.split("\n", 1)[1], encoding="utf-8")
            (folder / f"{name}.cmd").write_text(f'@"{sys.executable}" -IS "%~dp0{name}.py" %*\n', encoding="utf-8")
        (folder / "sudo.cmd").write_text("@%*\n", encoding="utf-8")
        (folder / "python3.cmd").write_text(f'@"{sys.executable}" %*\n', encoding="utf-8")
        return
    texts = dict.fromkeys(("systemctl", "poweroff", "reboot", "shutdown", "halt"), systemctl)
    texts |= {"sudo": _SUDO, "python3": _PYTHON.format(python=sys.executable.replace("'", "'\\''"))}
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
