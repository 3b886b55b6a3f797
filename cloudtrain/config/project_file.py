"""The `cloudtrain.toml` that `cloudtrain init` writes: every setting, what it does, and nothing switched on."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.config.files import NAME
from cloudtrain.config.settings import DEFAULTS, SETTINGS
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError

# Settings in the order in which a person meets them: (heading, ((name, example as TOML, what it does), ...)).
EXPLAINED: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "What is trained",
        (
            ("model", "3", "network of the shipped job: 1, 2 or 3"),
            ("recipe", '"best"', "best, fast or seed; the hyper-parameters that come with it"),
            ("epochs", "15", "passes over the training set, instead of the recipe's"),
            ("batch_size", "64", "images a step, instead of the recipe's"),
            ("lr", "0.01", "peak learning rate, instead of the recipe's"),
            ("seed", "1", "of every random number"),
            ("device", '"auto"', "auto, cpu, cuda or mps"),
            ("args", '["--subset", "6000"]', "further arguments of the training program"),
        ),
    ),
    (
        "Your own training package, instead of the shipped one",
        (
            ("job", '"train"', "its folder; it is sent to the machine"),
            ("module", '"train.main"', "what `python -m` runs there"),
            ("python", '"~/miniconda3/envs/ml/bin/python"', "interpreter on the machine, instead of looking for torch"),
            ("outputs", '["**", "!*.tmp"]', "which of its results are pulled; a later pattern wins"),
            ("runs_dir", '"runs"', "folder of the results, seen from this file"),
        ),
    ),
    (
        "The machine",
        (
            ("instance", '["g4dn.xlarge", "g6.xlarge"]', "EC2 types, tried in this order"),
            ("region", '"us-east-1"', "AWS Region"),
            ("profile", '"student"', "AWS profile"),
            ("spot", "false", "spot instances: cheaper, and AWS may take them back"),
            ("spot_restarts", "3", "how often a run whose spot instance was taken goes on by itself on another one"),
            ("ami", '"ami-0123456789abcdef0"', "image, instead of the newest Deep Learning AMI"),
            ("login", '"ec2-user"', "who logs in to --ami; made, with sudo, if the image has no such user"),
            ("tags", '{ project = "vision" }', "on all that a launch creates, beside cloudtrain's own"),
            ("subnet", '"subnet-0123456789abcdef0"', "instead of the default VPC's"),
            ("private_ip", "false", "reach it at its private address, over your VPN: no public one is asked for"),
            ("security_group", '"sg-0123456789abcdef0"', "instead of an own one"),
            ("ssh_cidr", '"203.0.113.0/24"', "addresses that may reach port 22, instead of yours"),
            ("volume_size", "60", "root disk in GiB"),
            ("allow_cpu", "false", "train also where the GPU of a launched machine cannot be used"),
            ("boot_limit", '"10m"', "how long a new machine may take until it answers; then it is ended"),
            ("identity", '"~/.ssh/id_ed25519"', "private key file for --host or --instance-id"),
        ),
    ),
    (
        "Money",
        (
            ("max_time", '"1h"', "the machine ends itself after this time"),
            ("max_cost", "1.50", "or before it costs more US dollars than this"),
            ("grace", '"10m"', "how long it waits for you after the training"),
            ("if_i_vanish", '"park"', "park keeps the disk with the results, terminate deletes it"),
            ("confirm_above", "0.0", "US dollars: a plan that cannot cost more is not asked about"),
        ),
    ),
    (
        "Here",
        (
            ("trickle_rate", "4.0", "MiB a second at which results come down during the training; 0: only at its end"),
            ("keep_on_host", "false", "a host of yours keeps a run's folder also once all of it is here and verified"),
            ("plain", "false", "one fact a line, nothing redrawn: for screen readers"),
        ),
    ),
)


def text() -> str:
    """The file: each setting commented out, with its default where it has one."""
    lines = [
        "# Settings of cloudtrain for this folder and those below it. A flag beats CLOUDTRAIN_* in the environment,",
        "# which beats this file. `cloudtrain config show --origin` tells what holds and why. What is set here of the",
        "# machine and of money counts once `cloudtrain trust` has asked you: such a file may come from somebody else.",
    ]
    for heading, settings in EXPLAINED:
        lines += ["", f"# {heading}"]
        width = max(len(f"{name} = {example}") for name, example, _ in settings)
        lines += [f"# {f'{name} = {example}':<{width}}  # {what}" for name, example, what in settings]
    return "\n".join(lines) + "\n"


def write(folder: Path) -> list[tuple[Path, str]]:
    """Write the file into `folder`, and the runs' folder into its `.gitignore`. What was done, for people.

    Raises:
        UsageError: there is one already, or the folder cannot be written.
    """
    path = folder / NAME
    if path.exists():
        raise UsageError(
            f"{path} exists already",
            hint="cloudtrain config show --origin tells what it sets",
            consequence="nothing was changed",
            code="exists",
        )
    try:
        disk.write_durably(path, text().encode(), mode=0o644)
        done = [(path, f"{len(SETTINGS)} settings, explained")]
        ignored = f"{DEFAULTS['runs_dir']}/"
        git = folder / ".gitignore"
        before = git.read_bytes() if git.exists() else b""
        if ignored.encode() not in before.split() and ((folder / ".git").exists() or before):
            gap = b"" if not before or before.endswith(b"\n") else b"\n"
            disk.write_durably(git, before + gap + f"{ignored}\n".encode(), mode=0o644)
            done.append((git, f"{ignored} stays out of git"))
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror}",
            hint="name a folder that you may write to",
            consequence="nothing was changed",
            code="folder",
        ) from error
    return done
