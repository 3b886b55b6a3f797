"""What holds on machines with a real kernel and systemd: .venv/bin/python scripts/test_real_machine.py [CASE ...]

Boots a small Debian in user-mode Linux and watches what it says, and when it ends: the lease, put on it as cloud-init
would or by cloud-init itself; the users that the start-up data makes; what a logout leaves of a run. Needs Linux, root,
and the Debian packages user-mode-linux, mmdebstrap and e2fsprogs; without them it is skipped, with the reason. The
image is built once, below build/, from Debian's mirror.

The exit code is 1 if a machine did not end, ended too soon, or did not say what it should.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _terminal import ROOT, Stop, entry, say

from cloudtrain.provider.ec2 import machine_lease, user_data
from cloudtrain.transfer.program import sources
from cloudtrain.transport import ssh_keys

# The first Debian whose systemd lets an inhibitor stop root as well.
SUITE = "trixie"
LIMIT_S = 330.0
# Machines that run side by side: they mostly wait, but their boots take a processor each.
AT_ONCE = 3
PACKAGES = (
    "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,openssh-server,openssh-client,sudo,python3,cloud-init"
)
TOOLS = {"linux.uml": "user-mode-linux", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
# Where cloud-init runs `bootcmd`; and what a person or a program does later. A case is a second disk, a bare tar file.
UNITS = {
    "case-boot.service": """\
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service
Before=cloud-init-main.service cloud-init-local.service sysinit.target
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
MADE_OF = hashlib.sha256(json.dumps([SUITE, PACKAGES, UNITS]).encode()).hexdigest()
IMAGE = ROOT / "build" / f"real-machine-{MADE_OF[:8]}.img"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One machine.

    Attributes:
        shows: what it shows.
        lasts_s: its lease, from its start; `ends_at_s`: where the clock time of the end differs, seconds from now.
        before: what happens on it before the start-up data is read; `later`: when it is up.
        earliest_s, latest_s: when it must end, in seconds after its start.
        says: what its console says in the end.
        login: the user that its start-up data makes, read by cloud-init; None: there is none, and the lease alone is
            begun in its place.
    """

    shows: str
    lasts_s: float = 1200.0
    ends_at_s: float | None = None
    before: str = ""
    later: str = ""
    earliest_s: float = 0.0
    latest_s: float = 120.0
    says: tuple[str, ...] = ("the lease is over",)
    login: str | None = None


def move(by_s: float) -> str:
    """Shell words that move the end to `by_s` seconds from the moment at which they run, as `extend` does."""
    text = machine_lease.move(11111111, 22222).replace("11111111", "$(( $(date +%s) + BY ))").replace("22222", "BY")
    return text.replace("BY", f"{by_s:.0f}")


LOG_IN = """\
login() {
  ssh -i /run/case/key -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/run/case/known_hosts "$@"
}
"""


def users_made(name: str, before: str = "") -> Case:
    """By cloud-init: the image's own user and `name` are let in by the key, the host shows the key that it was given,
    and both are root by sudo."""
    later = (
        f"{LOG_IN}cloud-init status --wait > /dev/null\nfor user in debian {name}; do\n"
        '  echo "case: $user: $(login $user@127.0.0.1 "echo in; sudo -n id -u" 2> /dev/null | xargs)"\ndone\n'
        f'echo "case: password: $(passwd -S {name} | cut -d" " -f2)"\n{move(5)}'
    )
    says = (f"case: {name}: in 0\n", "case: debian: in 0\n", "case: password: L\n", "the lease is over")
    what = "there already" if before else "of no image"
    return Case(shows=f"a user {what}", login=name, before=before, later=later, says=says, latest_s=300.0)


# The probe says what a logout does to programs; then a run is started by a login that ends at once, and looked for.
LOG_OUT = f"""\
{LOG_IN}
useradd -m -s /bin/bash trainer
install -D -o trainer -m 600 /run/case/key.pub ~trainer/.ssh/authorized_keys
echo "127.0.0.1 $(cat /etc/ssh/ssh_host_ed25519_key.pub)" > /run/case/known_hosts
ask() {{ login trainer@127.0.0.1 python3 -I -S /run/case/supervise.py "$@"; }}
told() {{ grep -oE '"('$1')": [^,}}]*' | sort -u | paste -sd' '; }}
left() {{
  echo "case: $1: $(ask probe | told logout)"
  ask start --run work/runs/$1 < /run/case/$2 | told ok
  sleep 10
  echo "case: $1: $(ask poll --run work/runs/$1 | told "state|stop") of $(pgrep -c -u trainer -x sleep)"
}}
until login trainer@127.0.0.1 true; do sleep 1; done
{{ cat /run/case/push; tar czf - -T /dev/null; }} | ask receive --workdir work --tree nothing | told ok
left stays spec
ask stop --run work/runs/stays | told state
mkdir /etc/systemd/logind.conf.d
printf '[Login]\nKillUserProcesses=yes\n' > /etc/systemd/logind.conf.d/kills.conf
systemctl restart systemd-logind
left ends spec
loginctl enable-linger trainer
left scope spec-scope
systemctl poweroff
"""

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
    "users": users_made(user_data.LOGIN),
    "user-there": users_made("builder", before="useradd -m -s /bin/bash builder"),
    "logout": Case(
        shows="KillUserProcesses is told, and a run is left in a scope",
        later=LOG_OUT,
        latest_s=300.0,
        says=(
            *('case: stays: "logout": null', 'case: stays: "state": "running" "stop": null of 1'),
            *('case: ends: "logout": "ends"', 'case: ends: "state": "exited" "stop": "shutdown" of 0'),
            *('case: scope: "logout": "scope"', 'case: scope: "state": "running" "stop": null of 1'),
        ),
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
        words = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={PACKAGES}", SUITE, str(root)]
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
    begun = machine_lease.script(ends_at, case.lasts_s)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        client, private = ssh_keys.new_key(path), path.read_text()
        path.unlink()
        host = ssh_keys.new_key(path)
        texts = {"key": private, "key.pub": f"{client}\n", **sources(), **run_left()}
        if case.login:
            begun = "cd /run/case && install -D -t /var/lib/cloud/seed/nocloud user-data meta-data"
            texts["meta-data"], texts["known_hosts"] = "instance-id: i-1\n", f"127.0.0.1 {host}\n"
            texts["user-data"] = user_data.render(
                host_private=path.read_text(),
                host_public=host,
                client_public=client,
                expires_at=ends_at,
                lasts_s=case.lasts_s,
                login=case.login,
            )
    return packed({**texts, "boot.sh": f"{case.before}\n{begun}", "later.sh": case.later})


def packed(texts: Mapping[str, str]) -> bytes:
    """A bare tar file; the one that is called `key` is for root alone."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o600 if name == "key" else 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def run_left() -> dict[str, str]:
    """What `receive` and `start` are given for a job that does nothing: no files, and two specs."""
    digest = hashlib.sha256(b"").hexdigest()
    push = {"v": 1, "base": None, "digest": digest, "files": {}, "delete": []}
    spec = {"v": 1, "run": "left", "tree": "nothing", "digest": digest, "argv": ["sleep", "999"], "lasts": None}
    return {
        "push": json.dumps(push) + "\n",
        "spec": json.dumps(spec),
        "spec-scope": json.dumps({**spec, "scope": True}),
    }


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
             *(("ds=nocloud", "network-config=disabled") if case.login else ("cloud-init=disabled",)),
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
