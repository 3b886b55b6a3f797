"""The verb `probe`: what the host has."""

from __future__ import annotations

import json
import os
import re
import sys
import time

from .base import IN_SCOPE, LINUX, TYPE_CHECKING, Failure, Later, Options, whole_number
from .processes import boot_id

if TYPE_CHECKING:
    import glob
    import platform
    import pwd
    import shutil
    import subprocess
    from typing import Any, Dict, Iterator, List, Optional, Tuple
else:
    glob = Later("glob")
    platform = Later("platform")
    pwd = Later("pwd")
    shutil = Later("shutil")
    subprocess = Later("subprocess")

# Where people and images keep an environment with torch; those of conda have more of them in `envs/`.
PLACES = ("/opt/pytorch", "~/venv", "~/.venv", "~/env", "~/miniconda3", "~/anaconda3", "~/miniforge3", "/opt/conda")
# Of an environment: where torch lies if it is there, and its interpreter (on Windows venv's, then conda's).
TORCH = ("lib*/python*/site-packages/torch/version.py", "Lib/site-packages/torch/version.py")
PYTHONS = ("bin/python", "Scripts/python.exe", "python.exe")
PYTHON_S, ALL_PYTHONS_S = 20.0, 60.0
SMI_S, CUDA_S = 10.0, 40.0
MOST_WORDS = 300

LOOK_FOR_TORCH = r"""
import json, os, re, sys
sys.path[:] = [p for p in sys.path if p]
torch = cuda = None
without = False
def told(name):
    found = re.search(r"^%s\b[^=]*=\s*['\"]([^'\"]+)" % name, text, re.M)
    return found.group(1) if found else None
try:
    from importlib.util import find_spec
    spec = find_spec("torch")
    with open(os.path.join(os.path.dirname(spec.origin), "version.py")) as file:
        text = file.read()
    cuda, torch = told("cuda"), told("__version__")
    without = bool(torch) and bool(re.search(r"^cuda\b[^=]*= *None", text, re.M))
except Exception:
    pass
if not torch:
    # What imports as much again as all the rest.
    try:
        from importlib.metadata import version
        torch = version("torch")
    except Exception:
        pass
print(json.dumps({"version": sys.version.split()[0], "path": sys.executable, "torch": torch, "cuda": cuda,
                  "without_cuda": without}))
"""

# What CUDA itself says, as torch would hear it; libcuda is the driver's. Not ready yet: machines of many GPUs, for some
# time after their boot.
ASK_CUDA = r"""
import ctypes, json, os, time
try:
    cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
except OSError as error:
    print(json.dumps({"fault": str(error)}))
    raise SystemExit
count, serves, words = ctypes.c_int(), ctypes.c_int(), ctypes.c_char_p()
for _ in range(6):
    error = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if error != 802:
        break
    time.sleep(4)
cuda.cuDriverGetVersion(ctypes.byref(serves))
fault = None
if error or not count.value:
    cuda.cuGetErrorString(error or 100, ctypes.byref(words))
    fault = (words.value or b"error %d" % error).decode("utf-8", "replace")
print(json.dumps({"fault": fault, "serves": "%d.%d" % (serves.value // 1000, serves.value % 1000 // 10)}))
"""


def do_probe(options: Options) -> Dict[str, Any]:
    gpu = ask_gpu()
    why: Optional[str] = "given"
    if options.only is not None:
        looked = [options.only]
        chosen = ask_python(os.path.expanduser(options.only), PYTHON_S)
    else:
        looked = list(dict.fromkeys(list(options.python) + ["python3"]))
        chosen, why = choose_python(looked + [sys.executable], gpu["serves"] if gpu["cuda_fault"] is None else None)
        looked += PLACES
    home = os.path.expanduser("~")
    return {
        "python": {"version": chosen["version"], "path": chosen["path"]},
        "torch": chosen["torch"],
        "cuda": chosen["cuda"],
        "without_cuda": chosen["without_cuda"],
        "why": why,
        "looked": looked,
        **gpu,
        "cpus": cpu_count(),
        "disk_free": shutil.disk_usage(existing_part(options.workdir or home)).free,
        "os": os_name(),
        "home": home,
        "boot_id": boot_id(),
        "at": time.time(),
        "logout": at_logout(),
    }


def choose_python(first: List[str], serves: Optional[str]) -> Tuple[Dict[str, Any], Optional[str]]:
    """The first interpreter whose torch can use the CUDA that the driver `serves` (None: there is none to use), else
    the first that has torch, else the first; and why, None for the very first."""
    best: List[Any] = [-1, {}, None]
    end = time.monotonic() + ALL_PYTHONS_S
    for number, path in enumerate(every_python(first)):
        try:
            found = ask_python(path, min(PYTHON_S, max(0.1, end - time.monotonic())))
        except Failure:
            continue
        suits = serves is not None and found["cuda"] is not None and major(found["cuda"]) <= major(serves)
        rank = 2 if suits else 1 if found["torch"] else 0
        if rank > best[0]:
            best = [rank, found, (None, "torch", "cuda")[rank] if number else None]
        if rank == (1 if serves is None else 2) or time.monotonic() > end:
            break
    if best[0] < 0:
        raise Failure("no_python", "no Python on the host can be run")
    return best[1], best[2]


def major(version: str) -> int:
    digits = version.split(".")[0]
    return whole_number(digits) or 0


def every_python(first: List[str]) -> Iterator[str]:
    """`first`, then the interpreters of those of the usual places that have torch, each once."""
    for path in dict.fromkeys(first):
        yield os.path.expanduser(path)
    for place in PLACES:
        place = os.path.expanduser(place)
        for folder in [place] + sorted(glob.glob(os.path.join(glob.escape(place), "envs", "*"))):
            if any(glob.glob(os.path.join(glob.escape(folder), torch)) for torch in TORCH):
                yield from (path for path in (os.path.join(folder, name) for name in PYTHONS) if os.path.exists(path))


def ask_python(path: str, limit: float) -> Dict[str, Any]:
    try:
        done = subprocess.run(
            [path, "-c", LOOK_FOR_TORCH],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=limit,
        )
    except OSError as error:
        raise Failure("bad_python", "%s cannot be run there: %s" % (path, error.strerror))
    except subprocess.SubprocessError:
        raise Failure("bad_python", "%s has given no answer within %d s" % (path, limit))
    try:
        answer: Dict[str, Any] = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        return {name: answer[name] for name in ("version", "path", "torch", "cuda", "without_cuda")}
    except (ValueError, IndexError, KeyError, TypeError):
        raise Failure("bad_python", "%s is no Python; it says: %s" % (path, words_of(done.stderr or done.stdout)))


def words_of(said: bytes) -> str:
    return " ".join(said.decode("utf-8", "replace").split())[:MOST_WORDS] or "nothing"


def ask_gpu() -> Dict[str, Any]:
    """What nvidia-smi and CUDA say of the GPUs. `nvidia_smi`: its words where it lists none, "" where it does, None
    where it is not there; `cuda_fault`: why CUDA finds none, as it says; `serves`: the newest CUDA of the driver."""
    answer: Dict[str, Any] = {"driver": None, "gpus": [], "nvidia_smi": None, "cuda_fault": None, "serves": None}
    program = shutil.which("nvidia-smi")
    if program is None and not os.path.exists("/dev/nvidiactl"):
        return answer
    if program is not None:
        query = [program, "--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits"]
        said = output_of(query, SMI_S)
        lines = [line.split(",", 2) for line in (said or b"").decode("utf-8", "replace").splitlines()]
        rows = [[part.strip() for part in line] for line in lines if len(line) == 3]
        # Of a GPU that shares the machine's memory it says "[N/A]".
        rows = [row for row in rows if re.match(r"[\d.]+$", row[0]) and re.match(r"\d+$|\[", row[1])]
        answer["gpus"] = [{"name": row[2], "memory_mib": whole_number(row[1])} for row in rows]
        answer["driver"] = rows[0][0] if rows else None
        answer["nvidia_smi"] = "" if rows else "no answer within %d s" % SMI_S if said is None else words_of(said)
    asked = output_of([sys.executable, "-I", "-S", "-c", ASK_CUDA], CUDA_S)
    try:
        told = json.loads((asked or b"").decode("utf-8", "replace"))
        answer["cuda_fault"], answer["serves"] = told["fault"], told.get("serves")
    except (ValueError, KeyError, TypeError):
        pass  # It hung, or this Python cannot ask: then nothing is known.
    return answer


def output_of(argv: List[str], limit: float) -> Optional[bytes]:
    """What a program prints, on stderr too; None: it did not end in time, or cannot be run."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        return subprocess.run(argv, stdin=null, stdout=pipe, stderr=subprocess.STDOUT, timeout=limit).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def at_logout() -> Optional[str]:
    """What becomes of this user's programs when this login ends: None: they go on; "scope": those in a scope of the
    user's own manager do; "ends": systemd's logind ends them (KillUserProcesses), and nothing here keeps them."""
    if not LINUX or not os.environ.get("XDG_SESSION_ID"):
        return None
    names = ("KillUserProcesses", "KillOnlyUsers", "KillExcludeUsers")
    rules = properties(["show-session"], names)
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    kills, only, exempt = (rules.get(name, "").split() for name in names)
    if kills != ["yes"] or user in exempt or (only and user not in only):
        return None
    if properties(["show-user", user], ("Linger",)).get("Linger") == "yes":
        # Of what is asked to print a word, the word alone: then it ran in its scope.
        if output_of(IN_SCOPE + ["echo", "kept"], 10.0) == b"kept\n":
            return "scope"
    return "ends"


def properties(what: List[str], names: Tuple[str, ...]) -> Dict[str, str]:
    said = output_of(["loginctl"] + what + ["--property=" + name for name in names], 10.0) or b""
    pairs = (line.partition("=") for line in said.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in pairs}


def cpu_count() -> int:
    if LINUX:
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def existing_part(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def os_name() -> str:
    try:
        with open("/etc/os-release") as file:
            found = re.search(r'^PRETTY_NAME="?([^"\n]+)', file.read(), re.M)
            if found:
                return found.group(1)
    except OSError:
        pass
    if sys.platform == "darwin":
        return "macOS " + platform.mac_ver()[0]
    return (platform.system() + " " + platform.release()).strip()
