"""A Python on a host, or on this computer: what it is, what it has of torch, and what it lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloudtrain.core.decode import Odd, json_object, made
from cloudtrain.environment.lock import KEPT
from cloudtrain.transport.base import Transport

# Prints what this interpreter is and which of the requirements in argv it lacks. Never imports torch. What it cannot
# read among them (a link, a folder) it lacks.
_EXAMINE = r"""
import json, os, re, sys, sysconfig
from importlib import metadata
try:
    from packaging.requirements import Requirement
except ImportError:
    try:
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        Requirement = None
def there(name):
    try:
        return metadata.version(name)
    except Exception:
        return None
def lacks(text):
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
    have = name and "://" not in text and there(name.group())
    try:
        asked = Requirement and name and "://" not in text and Requirement(text)
    except Exception:
        return True
    if asked and asked.marker and not asked.marker.evaluate({"extra": ""}):
        return False
    return not have or bool(asked) and not asked.specifier.contains(have, prereleases=True)
def system():
    # On Windows alone is there no uname; to import `platform` for it takes a tenth of all this.
    machine = os.uname().machine if hasattr(os, "uname") else os.environ.get("PROCESSOR_ARCHITECTURE", "AMD64")
    machine = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(machine, machine)
    if sys.platform == "darwin":
        return machine + "-apple-darwin"
    if sys.platform == "win32":
        return machine + "-pc-windows-msvc"
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")
    except Exception:
        return machine + "-unknown-linux-musl"
    known = [minor for minor in (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40) if minor <= int(libc[1])]
    return "%s-manylinux_2_%d" % (machine, known[-1] if known else 17)
site = sysconfig.get_path("purelib")
own = sys.prefix != sys.base_prefix or os.path.isdir(os.path.join(sys.prefix, "conda-meta"))
print(json.dumps({
    "python": os.path.abspath(sys.executable),
    "version": "%d.%d" % sys.version_info[:2],
    "platform": system(),
    "has": {name: there(name) for name in KEPT if there(name)},
    "lacks": [text for text in sys.argv[1:] if lacks(text)],
    "bin": sysconfig.get_path("scripts") if own else None,
    "sites": sorted({site, sysconfig.get_path("platlib"), *(p for p in sys.path if p.endswith("-packages"))}),
}))
""".replace("KEPT", repr(KEPT))

EXAMINE_S = 60.0
_WORD = re.compile(r"\w[\w.+!-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python.

    Attributes:
        python: its absolute path.
        version: "3.12".
        platform: its system, as uv calls it.
        has: name -> version of what it has of torch.
        lacks: requirements that it does not meet.
        bin: folder of the programs of its environment; None: it is of the system.
        sites: folders that it finds packages in.
    """

    python: str
    version: str
    platform: str
    has: Mapping[str, str]
    lacks: tuple[str, ...]
    bin: str | None
    sites: tuple[str, ...]


def examine(transport: Transport, python: str, wanted: Sequence[str] = ()) -> Interpreter | None:
    """The Python at the path `python` of a host; None: it is none, or says nothing that can be used.

    Args:
        wanted: requirements that it may lack.
    """
    answer = transport.run([python, "-c", _EXAMINE, *wanted], timeout=EXAMINE_S)
    try:
        found = made(Interpreter, json_object(answer.stdout.rstrip().rpartition(b"\n")[2]))
    except Odd:
        return None
    # It goes into questions to this computer's uv: what a host says must not become options there.
    words = (found.version, found.platform, *found.has, *found.has.values())
    lacks = tuple(one for one in wanted if one in found.lacks)
    return replace(found, lacks=lacks) if all(map(_WORD.fullmatch, words)) else None
