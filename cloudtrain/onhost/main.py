"""The verbs and their options.

python3 RUN_DIR/supervise.py VERB --run RUN_DIR [options]
python3 -c IMPORTED VERB --run RUN_DIR [options]        the same, without compiling the first file again
"""

from __future__ import annotations

import json
import os
import sys

from .base import TYPE_CHECKING, Failure, Options, from_os
from .files import Run, check_run, touch
from .stream import frame, write_all

if sys.platform == "win32":
    import msvcrt

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

# Verbs of a client that wants something of the run: while one of them comes now and then, the machine stays on.
LOOKS = ("poll", "follow", "stop", "lease", "manifest", "send", "read")


def number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


# Verb -> module, function of it, and options: how each is read, and what it is where it is not given. `...`: it must be
# given.
RUN: Dict[str, Any] = {"run": (str, ...), "id": (str, None)}
OFFSETS: Dict[str, Any] = {"log": (number, 0), "events": (number, 0)}
VERBS: Dict[str, Tuple[str, str, Dict[str, Any]]] = {
    "probe": ("probe", "do_probe", {**dict.fromkeys(("run", "only", "workdir"), (str, None)), "python": (str, [])}),
    "left": ("receive", "do_left", {"run": (str, None), "workdir": (str, ...), "tree": (str, ...)}),
    "receive": ("receive", "do_receive", {"run": (str, None), "workdir": (str, ...), "tree": (str, ...)}),
    "environment": ("environment", "do_environment", RUN),
    "build": ("environment", "do_build", RUN),
    "start": ("start", "do_start", RUN),
    "_supervise": ("supervise", "do_supervise", {**RUN, "lock": (int, ...)}),
    "poll": ("read", "do_poll", {**RUN, **OFFSETS}),
    "follow": ("follow", "do_follow", {**RUN, **OFFSETS, "beat": (float, 5.0)}),
    "stop": ("stop", "do_stop", {**RUN, "reason": (str, "user"), "grace": (float, 10.0)}),
    "lease": ("lease", "do_lease", {**RUN, "lasts": (float, None), "deadline": (float, None), "grace": (float, None)}),
    "clean": ("clean", "do_clean", {"workdir": (str, ...)}),
    "manifest": ("read", "do_manifest", {**RUN, "most": (number, None)}),
    "send": ("read", "do_send", {**RUN, "files": (str, ...)}),
    "read": ("read", "do_read", {**RUN, "name": (str, ...), "offset": (number, 0)}),
}


def function_of(verb: str) -> Callable[[Options], Optional[Dict[str, Any]]]:
    """What does a verb. Its module is imported now: each verb needs few of them, and must start fast."""
    module, function, _ = VERBS[verb]
    found: Callable[[Options], Optional[Dict[str, Any]]]
    found = getattr(__import__(module, globals(), None, [function], 1), function)
    return found


def parse(argv: List[str]) -> Options:
    """`VERB --option value --option=value ...`; argparse would take longer to import than most verbs take."""
    if not argv or argv[0] not in VERBS:
        raise Failure("usage", "a verb is expected first: %s" % ", ".join(v for v in VERBS if v[0] != "_"))
    verb, *rest = argv
    known = VERBS[verb][2]
    values = {name: list(value) if isinstance(value, list) else value for name, (_, value) in known.items()}
    while rest:
        name, given, text = rest.pop(0).partition("=")
        if not name.startswith("--") or name[2:] not in known:
            raise Failure("usage", "%s has no argument %s" % (verb, name))
        if not given:
            if not rest:
                raise Failure("usage", "a value is expected after %s" % name)
            text = rest.pop(0)
        read = known[name[2:]][0]
        try:
            value = read(text)
        except ValueError:
            raise Failure("usage", "%r is no value for %s" % (text, name))
        if isinstance(values[name[2:]], list):
            values[name[2:]].append(value)
        else:
            values[name[2:]] = value
    missing = ["--" + name for name, value in values.items() if value is ...]
    if missing:
        raise Failure("usage", "%s needs %s" % (verb, " and ".join(missing)))
    return Options(verb, values)


def main(argv: Optional[List[str]] = None) -> int:
    """Run one verb; its exit code. Answers and refusals are one JSON line (the two streaming verbs: see `refuse`)."""
    if sys.platform == "win32":
        for handle in (0, 1):
            msvcrt.setmode(handle, os.O_BINARY)
    options = None
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        looks = options.verb in LOOKS
        if looks:
            check_run(Run(options.run), options.id)
            touch(Run(options.run))
        answer = function_of(options.verb)(options)
        if looks:
            touch(Run(options.run))
        if answer is not None:
            frame({"ok": True, **answer})
        return 0
    except BrokenPipeError:
        return 1  # The client went away; nobody is left to tell.
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        return refuse(options, failure)
    except OSError as error:
        return refuse(options, from_os(error))


def refuse(options: Optional[Options], failure: Failure) -> int:
    """Tell the client why not: on stdout, or on stderr where stdout carries a file's bytes or frames."""
    line = json.dumps({"ok": False, "code": failure.code, "message": failure.message}).encode() + b"\n"
    try:
        if options is not None and options.verb in ("read", "send", "follow", "_supervise"):
            os.write(2, line)
        else:
            write_all(line)
    except OSError:
        pass
    return 1


def leave(code: int) -> None:
    """End this process without taking the interpreter apart first, which would take a sixth of a short verb's time."""
    sys.stderr.flush()
    os._exit(code)
