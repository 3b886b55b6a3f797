"""The program that is sent to hosts (`cloudtrain.onhost`): its sources as one stream, and what unpacks them there.

Every command line ends with a word that the program prints backwards before all else (`first_line.py`). BOOT then
reads the first line of stdin and runs the loader in it, which finds the packed sources next in stdin and leaves the
rest of it to the verb (docs/protocol.md, "Push").
"""

from __future__ import annotations

import json
import zlib
from importlib import resources

# No quotes, backslashes or dollars: whatever shell is on the way, there is nothing in it to take apart. The first line
# is printed by the command line, and so it comes from run directories of every release.
_FIRST = "import os,sys;os.write(1,sys.argv.pop()[::-1].encode()+bytes([10]));"

# Runs a verb from the run directory, its third argument. Imported, it is compiled once and not at every verb; from the
# last place, so that no file of the job there can pass for a module of Python.
IMPORTED = _FIRST + "sys.path.append(sys.argv[3]);import supervise;supervise.leave(supervise.main())"

# `supervise.py` of a run directory. The command lines of all verbs name it, and nothing of what is beside it.
_ENTRY = """\
import os, sys
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from onhost.main import leave, main
if __name__ == "__main__":
    leave(main())
"""

BOOT = _FIRST + "import json;size,load=json.loads(sys.stdin.buffer.readline()).values();exec(load)"

# Runs on the host, Python >= 3.8. `size` comes from BOOT; the command line begins with WORKDIR and RUN_DIR.
# The program is kept once for all runs, where Python leaves its compiled form beside it, and both are copied to the run
# directory: then no verb compiles it again. The time stamp is made from the content, because Python tells by time and
# size whether a compiled form is that of a source. Each file is written aside and renamed, `supervise.py` last: where
# that is, the package is whole. It runs in this process, because stdin's buffer already holds bytes meant for it.
LOADER = """\
import errno, hashlib, json, os, sys, zlib
packed = sys.stdin.buffer.read(size)
if len(packed) != size:
    sys.exit("the connection ended early")
packed = zlib.decompress(packed)
mark = hashlib.sha256(packed).hexdigest()[:16]
stamp = int(mark[:7], 16)
sources = {name: text.encode() for name, text in json.loads(packed.decode()).items()}
def put(folder, name, content):
    path = os.path.join(folder, name)
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read() == content and os.stat(path).st_mtime == stamp:
                return
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    aside = "%s.%d.part" % (path, os.getpid())
    try:
        with open(aside, "wb") as file:
            file.write(content)
        os.utime(aside, (stamp, stamp))
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
workdir, run = sys.argv[1:3]
try:
    for name in sources:
        put(run, name, sources[name])
except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    why = "the disk of the host is full" if full else "%s cannot be written: %s" % (run, error.strerror)
    print(json.dumps({"ok": False, "code": "disk_full" if full else "refused", "message": why}))
    sys.exit(1)
once = os.path.join(workdir, "lib", mark)
try:
    for name in sources:
        put(once, name, sources[name])
except OSError:
    once = run
sys.path.append(once)
import supervise
try:
    ending = os.path.basename(supervise.__spec__.cached).partition(".")[2]
    for name in sources:
        folder, _, file = name[:-2].rpartition("/")
        compiled = os.path.join(folder, "__pycache__", file + ending)
        if not os.path.exists(os.path.join(once, compiled)):
            __import__(name[:-3].replace("/", "."))
        with open(os.path.join(once, compiled), "rb") as file:
            put(run, compiled, file.read())
except (OSError, AttributeError):
    pass
sys.argv = [os.path.join(run, "supervise.py")] + sys.argv[3:]
supervise.leave(supervise.main())
"""

# The same for a host that has no run directory: the modules are imported from what arrived, and nothing is written.
PASSING_LOADER = """\
import json, sys, zlib
from importlib.machinery import ModuleSpec
sources = json.loads(zlib.decompress(sys.stdin.buffer.read(size)).decode())
class Sent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        for file in (name.replace(".", "/") + ".py", name.replace(".", "/") + "/__init__.py"):
            if file in sources:
                return ModuleSpec(name, Sent, origin=file, is_package=file.endswith("/__init__.py"))
    @staticmethod
    def create_module(spec):
        return None
    @staticmethod
    def exec_module(module):
        file = module.__file__ = module.__spec__.origin
        exec(compile(sources[file], file, "exec"), module.__dict__)
sys.meta_path.append(Sent)
sys.argv[0] = "supervise.py"
import supervise
supervise.leave(supervise.main())
"""


def sources() -> dict[str, str]:
    """The files of the program by their paths in a run directory, in the order in which they are to be written."""
    package = resources.files("cloudtrain.onhost")
    names = sorted(file.name for file in package.iterdir() if file.name.endswith(".py"))
    return {**{f"onhost/{name}": (package / name).read_text("utf-8") for name in names}, "supervise.py": _ENTRY}


def packed(loader: str) -> bytes:
    """What BOOT reads: a line with `loader`, then the sources as it takes them."""
    body = zlib.compress(json.dumps(sources()).encode(), 6)
    return json.dumps({"supervise": len(body), "load": loader}).encode() + b"\n" + body
