"""Which packages the scripts install, by version and sha256 (scripts/locked): python3 scripts/packages.py lock|audit

    lock    choose anew, the newest that fit pyproject.toml, with uv; torch and what it brings is left to pip
    audit   ask PyPI for known weaknesses, with pip-audit. Exit code 0: there are none, 1: there are, 3: it does not say

uv and pip-audit come into a folder of their own, which goes again.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _bootstrap import locked, venv_python
from _terminal import ROOT, Stop, entry, say, short

# Builds for the CPU, for each CUDA, for ROCm have hashes of their own, and which one it is the user's index decides.
TORCH = re.compile(r"torch|triton|nvidia-|cuda-")
# What hatchling needs to install a folder as it is.
EDITABLE = "editables~=0.3"
NOT_SAID = 3


def main(arguments: list[str]) -> int:
    """Do what the one argument says."""
    if arguments == ["lock"]:
        return lock()
    if arguments == ["audit"]:
        return audit()
    print(__doc__)
    return 0 if arguments in (["-h"], ["--help"]) else 2


def lock() -> int:
    """Write both files. They hold for each system and Python that the project runs on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    build = "\n".join([*project["build-system"]["requires"], EDITABLE])
    command = ["pip", "compile", "pyproject.toml", "-", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--quiet"]
    for extras in (["dev"], ["local", "rehearse"]):
        # What both have is the same in both.
        more = [] if extras == ["dev"] else ["--constraints", str(locked(["dev"]))]
        more += [word for extra in extras for word in ("--extra", extra)]
        told = with_tool("uv", [*command, *more], build)
        if told.returncode:
            raise Stop("uv found no packages that fit", hint="see above", detail=told.stderr.splitlines()[-9:])
        chosen = re.findall(r"^\S.*\n(?: .*\n)*", told.stdout, re.MULTILINE)
        kept = [lines for lines in chosen if not TORCH.match(lines)]
        path = locked(extras)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(kept), encoding="utf-8", newline="\n")
        say(f"  {short(path)}: {len(kept)} packages")
    return 0


def audit() -> int:
    """Say what is known of torch, and of what is locked for `dev` here and for this Python; the other is part of it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = re.findall(r"^\S.*(?= \\$)", locked(["dev"]).read_text(encoding="utf-8"), re.MULTILINE)
    wanted += [name for extra in extras.values() for name in extra if TORCH.match(name)]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "packages.txt")
        listed.write_text("\n".join(wanted), encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        told = with_tool("pip-audit", ["--requirement", str(listed), *options])
    try:
        every = json.loads(told.stdout)["dependencies"]
    except ValueError:
        say(f"  not audited: {(told.stderr.strip().splitlines() or ['pip-audit gave no answer'])[-1][:300]}")
        return NOT_SAID
    weak = [(one, found) for one in every for found in one.get("vulns", ())]
    for one, found in weak:
        say(f"  {one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}")
    # "No known vulnerabilities", says pip-audit itself where it has learned nothing.
    unknown = [one["name"] for one in every if "vulns" not in one]
    if unknown:
        say(f"  not audited: {len(unknown)} of {len(every)} packages; of {unknown[0]}, say, the index knows nothing")
    say(f"  known weaknesses: {len(weak)} in {len(every) - len(unknown)} packages")
    return 1 if weak else NOT_SAID if unknown else 0


def with_tool(name: str, arguments: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a Python package's program with `text` as its input. It is installed for this one call."""
    with tempfile.TemporaryDirectory() as folder:
        say(f"  {name}: is installed for this call")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = venv_python(Path(folder))
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", name], check=True)
        command = [python, "-m", name.replace("-", "_"), *arguments]
        return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)


if __name__ == "__main__":
    entry(main)
