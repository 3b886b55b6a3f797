"""Rows 15 to 20: a machine that does not answer yet, or not at all, or is not the one that was launched."""

from __future__ import annotations

import re

from tests.region.faults.matrix import TERMINATED, Case
from tests.region.faults.rows_launch import NO_INSTANCE, one_run
from tests.region.faults.scene import NAME, Scene

PROVIDER = "tests/region/ec2/test_provider.py"
SOON = (("CLOUDTRAIN_BOOT_LIMIT", "5s"),)
LONG = ("--pause", "0.1", "--lines", "100", "--epochs", "50")


def _waited(scene: Scene) -> None:
    scene.run()
    assert scene.seconds > 4
    assert len(scene.calls("RunInstances")) == 1


def _stranger(scene: Scene) -> None:
    said = scene.run()
    shown = said[said.index("error: ") :]
    assert len(set(re.findall(r"SHA256:[A-Za-z0-9+/]{43}", shown))) == 2, shown


def _stranger_later(scene: Scene) -> None:
    scene.run(*LONG, flags=("-d",))
    scene.inject("host-key-changes-on-reconnect")
    scene.cli("logs", NAME)


def _stop(scene: Scene) -> None:
    scene.cli("stop", NAME, "--yes")


CASES = (
    Case(
        row=15,
        fault="The instance runs, its SSH port is closed for a while",
        how="`slow-boot:4s` (the usual limit is 10 min)",
        script=("slow-boot:4s",),
        play=_waited,
        sees=("host key pinned (at most 10m 00s)",),
        code=0,
        money=TERMINATED,
        also=(f"{PROVIDER}::test_a_machine_that_never_answers_is_given_up",),
    ),
    Case(
        row=16,
        way="for a while",
        fault="The SSH port is open and silent for a while",
        how="`no-banner:4s`",
        script=("no-banner:4s",),
        play=_waited,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=16,
        way="for ever",
        fault="The SSH port is open and stays silent",
        how="`no-banner`, `CLOUDTRAIN_BOOT_LIMIT=5s`",
        script=("no-banner",),
        environment=SOON,
        play=one_run,
        sees=("(running) did not answer on port", "within 5 s", "the last on its console:", NO_INSTANCE),
        code=6,
        money=TERMINATED,
        log="",
    ),
    Case(
        row=17,
        way="for a while",
        fault="The machine refuses the run's key while it boots",
        how="`auth-refused:4s`",
        script=("auth-refused:4s",),
        play=_waited,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=17,
        way="for ever",
        fault="The machine goes on refusing the run's key",
        how="`auth-refused:600s`, `CLOUDTRAIN_BOOT_LIMIT=5s`",
        script=("auth-refused:600s",),
        environment=SOON,
        play=one_run,
        sees=("answers but refuses the run's key", NO_INSTANCE),
        code=6,
        money=TERMINATED,
        log="",
        also=(f"{PROVIDER}::test_a_key_that_stays_refused_is_fatal",),
    ),
    Case(
        row=18,
        fault="Another machine answers at the address: a host key that nobody told",
        how="`wrong-host-key`; both fingerprints are shown, nothing is sent",
        script=("wrong-host-key",),
        play=_stranger,
        sees=("does not show the host key of i-", "nothing was sent", NO_INSTANCE),
        code=6,
        money=TERMINATED,
        log="",
        also=("tests/host/transport/test_ssh_faults.py::test_another_host_key_ends_it_before_anything_is_said",),
    ),
    Case(
        row=19,
        fault="The host key was right, and is another one when a later command connects",
        how="`run -d`, then `host-key-changes-on-reconnect`, then `cloudtrain logs`; nothing is sent",
        play=_stranger_later,
        sees=("does not show the host key of i-", "nothing was sent", f"cloudtrain stop {NAME}"),
        code=6,
        money="may be running at $0.536 an hour",
        alive="it parks itself, with its disk, by",
        mend=_stop,
        then="`cloudtrain stop` asks EC2, once the machine shows its own key again; the lease ends it otherwise",
        log="part",
        also=("tests/host/transport/test_ssh_faults.py::test_a_host_key_that_changes_between_two_connections",),
    ),
)
