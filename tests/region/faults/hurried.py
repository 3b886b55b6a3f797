"""`cloudtrain` with shorter waits: `python -m tests.region.faults.hurried ARGV` is `cloudtrain ARGV` in all else."""

from __future__ import annotations

import os
import sys

from cloudtrain.__main__ import main
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end import release
from cloudtrain.provider.ec2.launch import acquire
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.provider import Ec2Provider
from cloudtrain.provider.ec2.reach import boot
from cloudtrain.transfer import follow
from cloudtrain.transport import ssh_link

WAITS = {
    "backoff": 0.05,
    "poll": 0.3,
    "send": 10.0,
    "settle": 1.5,
    "visible": 5.0,
    "pending": 15.0,
    "boot": 30.0,
    "auth": 6.0,
    "end": 10.0,
    "group": 6.0,
}

if __name__ == "__main__":
    defaults = Pace.__init__.__kwdefaults__
    assert defaults is not None and set(WAITS) <= set(defaults)
    defaults.update(WAITS)
    follow.BACKOFF_S = (0.1, 0.2, 0.4, 0.8)
    acquire.SHORTEST_LEASE_S = 0.0
    follow._NO_SPACE_WAIT_S, follow.SILENT_S = 0.5, 3.0
    boot.LOOK_EVERY_S, boot.AGAIN_S, boot.ASK_EVERY_S = 1.0, 3.0, 0.5
    release._SENDS_FOR_S = 2.0
    ssh_link.PROBE_AFTER_S, ssh_link.PROBE_LIMIT_S = 1.0, 2.0
    if address := os.environ.get("FAULTS_ADDRESS"):
        # The emulated region is always on this computer, where addresses are not looked up.
        Clients.loopback = False  # type: ignore[assignment, method-assign]
        Ec2Provider.__init__.__kwdefaults__["ask_address"] = lambda: address  # type: ignore[index]
    sys.exit(main())
