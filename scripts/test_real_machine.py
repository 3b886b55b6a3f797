"""The lease on machines with a real kernel and a real systemd: .venv/bin/python scripts/test_real_machine.py [CASE ...]

Boots a small Debian in user-mode Linux, puts the start-up data's lease on it as cloud-init would, and watches when it
ends. Needs Linux, root, and the Debian packages user-mode-linux, mmdebstrap and e2fsprogs; without them it is skipped,
with the reason. The image is built once, below build/, from Debian's mirror.

The exit code is 1 if a machine did not end, or ended too soon.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _terminal import ROOT, Stop, entry, say

from cloudtrain.provider.ec2 import machine_lease

# The first Debian whose systemd lets an inhibitor stop root as well.
SUITE = "trixie"
IMAGE = ROOT / "build" / f"real-machine-{SUITE}.img"
LIMIT_S = 330.0
# Machines that run side by side: they mostly wait, but their boots take a processor each.
AT_ONCE = 3
TOOLS = {"linux.uml": "user-mode-linux", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
# Where cloud-init runs `bootcmd`; and what a person or a program does later. A case is a second disk, a bare tar file.
UNITS = {
    "case-boot.service": """\
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'mkdir -p /run/case && tar xf /dev/ubdb -C /run/case && sh /run/case/boot.sh'
[Install]
WantedBy=sysinit.target
""",
    "case-later.service": """\
[Unit]
IgnoreOnIsolate=yes
[Service]
ExecStart=/bin/sh -c 'sh -x /run/case/later.sh > /dev/console 2>&1'
KillMode=process
[Install]
WantedBy=multi-user.target
""",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One machine.

    Attributes:
        shows: what it shows.
        lasts_s: its lease, from its start; `ends_at_s`: where the clock time of the end differs, seconds from now.
        before: what happens on it before the start-up data is read; `later`: when it is up.
        earliest_s, latest_s: when it must end, in seconds after its start.
        says: what its console says in the end.
    """

    shows: str
    lasts_s: float = 1200.0
    ends_at_s: float | None = None
    before: str = ""
    later: str = ""
    earliest_s: float = 0.0
    latest_s: float = 120.0
    says: tuple[str, ...] = ("the lease is over",)


def move(by_s: float) -> str:
    """Shell words that move the end to `by_s` seconds from the moment at which they run, as `extend` does."""
    text = machine_lease.move(11111111, 22222).replace("11111111", "$(( $(date +%s) + BY ))").replace("22222", "BY")
    return text.replace("BY", f"{by_s:.0f}")


CASES = {
    "clock-ahead": Case(shows="the clock is 3 h ahead at boot", before='date -s "+3 hours"'),
    "clock-behind": Case(
        shows="the clock is 3 h behind", before='date -s "-3 hours"', lasts_s=80.0, earliest_s=70.0, latest_s=150.0
    ),
    "past": Case(shows="the end is past already at boot", lasts_s=60.0, ends_at_s=-60.0),
    "inhibitor": Case(
        shows="an inhibitor blocks the shutdown",
        lasts_s=100.0,
        later="systemd-inhibit --what=shutdown --mode=block --who=apt --why=upgrade sleep infinity &\nsleep 3\n"
        "systemctl poweroff && echo 'the inhibitor holds up nothing'",
        says=("it failed:", "systemctl --check-inhibitors=no poweroff"),
        earliest_s=90.0,
        latest_s=200.0,
    ),
    "stopped": Case(
        shows="the timer is stopped, and the program killed",
        lasts_s=100.0,
        later="systemctl stop cloudtrain-lease.timer\nsystemctl kill -s KILL cloudtrain-lease.service\n",
        earliest_s=90.0,
        latest_s=200.0,
    ),
    "service-stopped": Case(
        shows="the service is stopped, all is reloaded and isolated, the disk is full",
        lasts_s=110.0,
        later="systemctl stop cloudtrain-lease.service\nsystemctl daemon-reload\nsystemctl isolate multi-user.target\n"
        "dd if=/dev/zero of=/full bs=1M\n",
        earliest_s=100.0,
        latest_s=210.0,
    ),
    "moved": Case(
        shows="the end is moved by a minute and more, and holds over a reboot",
        lasts_s=100.0,
        later=f"[ -e /moved ] && exit\ntouch /moved\n{move(140)}sync\nsystemctl reboot\n",
        earliest_s=145.0,
        latest_s=310.0,
    ),
}


def why_not() -> str | None:
    """Why no machine can be booted here; None: one can."""
    if not sys.platform.startswith("linux"):
        return "user-mode Linux needs Linux"
    if os.geteuid() != 0:
        return "the image is built as root"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return f"not installed: {' '.join(missing)}" if missing else None


def build() -> None:
    """Make the image that every machine starts from, unless it is there."""
    if IMAGE.exists():
        return
    say(f"building {IMAGE.relative_to(ROOT)} from Debian {SUITE}")
    IMAGE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        packages = "--include=systemd,systemd-sysv,dbus"
        words = ["mmdebstrap", "--quiet", "--variant=essential", packages, SUITE, str(root)]
        if subprocess.run(words, stdin=subprocess.DEVNULL).returncode != 0:
            raise Stop(
                "the image could not be built", hint="what mmdebstrap said is above; deb.debian.org must be reached"
            )
        wants = {"case-boot.service": "sysinit", "case-later.service": "multi-user"}
        for name, text in UNITS.items():
            (root / "etc" / "systemd" / "system" / name).write_text(text)
            link = root / "etc" / "systemd" / "system" / f"{wants[name]}.target.wants" / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(f"../{name}")
        made = Path(folder) / "image"
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(made), "1G"], check=True)
        shutil.move(made, IMAGE)


def disk_of(case: Case) -> bytes:
    """The second disk of a machine: what happens on it."""
    ends_at = time.time() + (case.lasts_s if case.ends_at_s is None else case.ends_at_s)
    texts = {"boot.sh": f"{case.before}\n{machine_lease.script(ends_at, case.lasts_s)}", "later.sh": case.later}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def play(case: Case) -> tuple[float | None, str]:
    """Boot a machine and wait for its end.

    Returns:
        How long it lived, in seconds, None if it had to be killed; and its console.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _live(case, Path(folder))


def _live(case: Case, folder: Path) -> tuple[float | None, str]:
    disk, second, console = folder / "disk", folder / "case", folder / "console"
    subprocess.run(["cp", "--sparse=always", str(IMAGE), str(disk)], check=True)
    second.write_bytes(disk_of(case))
    words = ["linux.uml", f"ubd0={disk}", f"ubd1r={second}", "root=/dev/ubda", "rw", "mem=256M",
             "con=null", "con0=null,fd:1", "ssl=null", "quiet", "systemd.show_status=0"]  # fmt: skip
    began = time.monotonic()
    with console.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(folder)}
        machine = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
        try:
            machine.wait(LIMIT_S)
            lived = time.monotonic() - began
        except subprocess.TimeoutExpired:
            lived = None
        finally:
            # What it has started is in its group.
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.wait()
    return lived, console.read_text(errors="replace")


def verdict(case: Case, lived: float | None, console: str) -> str | None:
    """What is wrong; None: nothing."""
    if lived is None:
        return f"it did not end within {LIMIT_S:.0f} s"
    if not case.earliest_s <= lived <= case.latest_s:
        return f"it ended after {lived:.0f} s, not between {case.earliest_s:.0f} and {case.latest_s:.0f} s"
    missing = [words for words in case.says if words not in console]
    return f"its console does not say {missing}" if missing else None


def main(arguments: list[str]) -> int:
    """Play the cases that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--console", action="store_true", help="show what each machine said")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if reason := why_not():
        say(f"skipped: {reason}")
        return 0
    build()
    failed = 0
    names = wanted.cases or list(CASES)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, (lived, console) in zip(names, pool.map(lambda name: play(CASES[name]), names), strict=True):
            wrong = verdict(CASES[name], lived, console)
            failed += wrong is not None
            ending = wrong or f"ended after {lived:.0f} s"
            say(f"{'FAILED' if wrong else 'ok':6} {name:16} {CASES[name].shows}: {ending}")
            if wanted.console or wrong:
                say(console[-4000:])
    return 1 if failed else 0


if __name__ == "__main__":
    entry(main)
