"""What is done to a run of the soak: faults of the emulator, and the points at which its commands are killed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """One fault as the emulator takes it.

    Attributes:
        weight: how often it is chosen, among the others.
        destroys: it takes the machine away from outside, with what was not here yet.
        launches: further launches that an attempt may make because of it.
        spot: it needs a spot instance.
    """

    text: str
    weight: int = 2
    destroys: bool = False
    launches: int = 0
    spot: bool = False


TROUBLES = (
    Trouble("capacity:us-east-1a"),
    Trouble("capacity:*:g4dn.xlarge", 1),
    Trouble("VcpuLimitExceeded:1@RunInstances", 1),
    Trouble("UnauthorizedOperation:1@RunInstances", 1),
    Trouble("UnauthorizedOperation:2@TerminateInstances"),
    Trouble("RequestLimitExceeded:2@RunInstances"),
    Trouble("RequestLimitExceeded:2@DescribeInstances"),
    Trouble("ServiceUnavailable:2@TerminateInstances"),
    Trouble("DependencyViolation:1@DeleteSecurityGroup"),
    Trouble("lost-response@RunInstances", 3),
    Trouble("lost-response@CreateSecurityGroup"),
    Trouble("lost-response@TerminateInstances", 3),
    Trouble("lost-response@ModifyInstanceAttribute", 1),
    Trouble("internal-after-effect@RunInstances", 3),
    Trouble("internal-after-effect@TerminateInstances"),
    Trouble("html500@DescribeInstances:2"),
    Trouble("html500@RunInstances:1"),
    Trouble("slow-api:900ms@RunInstances:2", 3),
    Trouble("slow-api:400ms@DescribeInstances:5"),
    Trouble("slow-api:900ms@TerminateInstances:2"),
    Trouble("not-found:3s"),
    Trouble("dies-pending", 2, launches=1),
    Trouble("slow-boot:3s"),
    Trouble("no-banner:3s"),
    Trouble("auth-refused:2s"),
    Trouble("wrong-host-key", 1),
    Trouble("host-key-changes-on-reconnect", 1),
    Trouble("caller-moves:2s", 1),
    Trouble("reset-push:3000:1", 3),
    Trouble("cut:2000:2", 3),
    Trouble("cut:9000:3", 3),
    Trouble("freeze:3s:4000"),
    Trouble("sshd-dies:2s:2s"),
    Trouble("disk-full:60000", 1),
    Trouble("terminated:3s", 2, destroys=True),
    Trouble("reboot:3s", 2, destroys=True),
    Trouble("spot-notice:2s:2s", 2, destroys=True, spot=True),
    Trouble("ssm-denied", 1),
    Trouble("clock-skew", 1),
    Trouble("expired-token", 1),
)
# The crash points that a command can come to, by the state in which it finds the run; None: there is none yet.
POINTS = {
    None: ("K0", "K1", "K1:2", "K2", "K3", "K4", "K5", "K5:2", "K6", "K6:2", "K7", "K8"),
    "planned": ("K1", "K1:2", "K2", "K3", "K4", "K5", "K6", "K7"),
    "provisioning": ("K1:2", "K2", "K3", "K4", "K5", "K5:2", "K6", "K8"),
    "booting": ("K5", "K6", "K6:2", "K7", "K8"),
    "syncing": ("K6", "K6:2", "K7", "K8"),
    "running": ("K6", "K7", "K8"),
    "pulling": ("K7", "K8"),
}
