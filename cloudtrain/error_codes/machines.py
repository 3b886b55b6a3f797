"""What goes wrong with a machine in the account: its start, its end, its lease, taking it back."""

from __future__ import annotations

from cloudtrain.error_codes.entry import group

_UP = "it may still be billed; it ends itself at its limit"

GROUP = group(
    "Machines in the account",
    "A machine exists or may exist. Each of them carries its own limit and ends itself there, whether this computer is "
    "on or off; `cloudtrain clean` finds all of them.",
    (
        "release_pending",
        (4, 6),
        "the end of a machine could not be confirmed",
        "it may still be billed until its own lease switches it off; the results are safe",
        "cloudtrain stop RUN tries again; the message has the command of AWS's own tool",
    ),
    (
        "launch_unknown",
        (6,),
        "AWS gave no usable answer to the launch, so a machine may or may not exist",
        _UP,
        "cloudtrain stop RUN looks again and ends it",
    ),
    ("not_terminated", (6,), "a machine was told to end and has not ended in time", _UP, "cloudtrain clean"),
    (
        "not_deleted",
        (6,),
        "a disk or security group was told to go and is still there",
        "a disk costs cents a day; a security group costs nothing",
        "cloudtrain clean",
    ),
    (
        "not_ended",
        (6,),
        "something that clean should end may still be billed",
        _UP,
        "cloudtrain clean --yes again, or the EC2 console",
    ),
    (
        "not_seen",
        (6,),
        "a Region did not answer, so its machines are not in the list",
        "what lives there goes on and ends itself at its limit",
        "run the same command again; cloudtrain doctor checks the account",
    ),
    ("no_leftover", (2,), "nothing of cloudtrain's has this id", "nothing was changed", "cloudtrain clean"),
    (
        "instance_gone",
        (6,),
        "the run's machine has ended",
        "nothing is billed any more; what was pulled before is here",
        "cloudtrain show; a new run: cloudtrain rerun",
    ),
    (
        "spot_reclaimed",
        (6, 7),
        "EC2 took the spot instance back",
        "nothing is billed any more; what had arrived is here",
        "cloudtrain run --resume RUN trains on from its checkpoint",
    ),
    (
        "parked",
        (2, 6),
        "the run's machine is parked: its GPU is off, its disk keeps the results",
        "its disk costs cents a day until the results are pulled",
        "cloudtrain pull starts it, fetches the results and ends it",
    ),
    (
        "stuck_pending",
        (5,),
        "the instance did not start in time",
        "it is ended; nothing is billed any more",
        "run the same command again, or another --instance",
    ),
    (
        "not_started",
        (6,),
        "the parked machine did not start in time",
        "its results stay on its disk, which costs cents a day",
        "cloudtrain pull again",
    ),
    (
        "not_stopped",
        (6,),
        "your own instance did not stop in time",
        _UP,
        "aws ec2 describe-instances --instance-ids i-...",
    ),
    ("lease", (6,), "the machine did not take its new end", "it ends itself at the old one", "cloudtrain extend again"),
    ("not_extended", (2,), "there is no end that could be moved", "nothing was changed", "cloudtrain show"),
    (
        "no_key",
        (2, 6),
        "the key to the machine is not on this computer, and no other way in is allowed",
        _UP,
        "cloudtrain clean --all --yes ID ends it",
    ),
    (
        "no_host_key",
        (6,),
        "the console output shows no host key to trust",
        "nothing was sent",
        "wait a few minutes, or --host-key SHA256:...",
    ),
    (
        "not_adoptable",
        (2,),
        "this instance is not a machine of yours that cloudtrain launched",
        "nothing was changed",
        "cloudtrain ls --remote",
    ),
    ("known_already", (2,), "this computer knows the instance already", "nothing was changed", "cloudtrain logs RUN"),
)
