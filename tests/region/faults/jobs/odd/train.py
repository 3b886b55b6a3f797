"""A job of the standard library alone that gets into trouble, or makes it, as it is told."""

import argparse
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--burst", type=int, default=0, help="megabytes of log, as fast as they go")
parser.add_argument("--text", action="store_true", help="prints what must not reach a terminal, a letter in two halves")
parser.add_argument("--shorten", action="store_true", help="cuts its own log in the middle, then goes on")
parser.add_argument("--silent", type=float, default=0.0, help="seconds without a word")
parser.add_argument("--fill", type=int, default=0, help="bytes of a file that it writes")
parser.add_argument("--weights", type=int, default=0, help="bytes of a result")
parser.add_argument("--forge", default="", help="has its supervisor tell of results that are not so: name, sum, size")
parser.add_argument("--link", action="store_true", help="leaves a link among its results")
parser.add_argument("--pause", type=float, default=0.0, help="seconds at the end")
options, _ = parser.parse_known_args()

out, run = Path(os.environ["CLOUDTRAIN_OUT"]), Path(os.environ["CLOUDTRAIN_RUN"])


def put(name, data):
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    aside.replace(path)


def say(data):
    while data:
        data = data[os.write(1, data) :]


FORGERY = """
import json, os, sys
import supervise_true
from supervise_true import *


def main(*words):
    if "manifest" not in sys.argv:
        return supervise_true.main(*words)
    good = {"name": "good.txt", "size": 5, "sha256": GOOD}
    bad = {"name": dict(name=OUTSIDE).get(KIND, "bad.txt"), "size": 1 << 50 if KIND == "size" else 4, "sha256": BAD}
    print(json.dumps({"ok": True, "files": [good, bad]}), flush=True)
    return 0
"""

say(b"here I am\n")
if options.burst:
    line = b"0123456789abcdef" * 63 + b" [bold]\n"
    for _ in range(options.burst * 1024):
        say(line)
if options.text:
    letter = "ž".encode()
    for number in range(20):
        say(b"[bold]line %d[/bold] \x1b]0;title\x07\x1b[31m \n" % number + letter[:1])
        time.sleep(0.05)
        say(letter[1:] + b" 50%\r" + letter + b" 100%\n")
if options.shorten:
    say(b"told before the cut\n" * 100)
    time.sleep(2.5)
    os.ftruncate(1, 10)
    say(b"told after the cut\n" * 3)
    time.sleep(2.5)
if options.silent:
    time.sleep(options.silent)
if options.fill:
    put("big.bin", os.urandom(options.fill))
if options.weights:
    put("weights.bin", os.urandom(options.weights))
if options.link:
    put("good.txt", b"good\n")
    (out / "bad.txt").symlink_to("/etc/passwd")
if options.forge:
    import hashlib

    put("good.txt", b"good\n")
    put("bad.txt", b"bad\n")
    true = (run / "supervise.py").read_text()
    (run / "supervise_true.py").write_text(true)
    told = {"KIND": options.forge, "OUTSIDE": "../../outside.txt", "GOOD": hashlib.sha256(b"good\n").hexdigest()}
    told["BAD"] = "0" * 64 if options.forge == "sum" else hashlib.sha256(b"bad\n").hexdigest()
    values = "".join(f"{name} = {value!r}\n" for name, value in told.items())
    aside = run / "supervise.py.new"
    aside.write_text(values + FORGERY)
    aside.replace(run / "supervise.py")
time.sleep(options.pause)
