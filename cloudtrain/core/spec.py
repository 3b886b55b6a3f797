"""What the user asked for, as frozen values. `config/settings.py` merges the settings, `provider/` looks things up."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import meant

RUN_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
MODELS = (1, 2, 3)
RECIPES = ("best", "fast", "seed")  # of the training program that comes along
DEVICES = ("auto", "cpu", "cuda", "mps")


class Target(StrEnum):
    """Where a run trains; each value is one provider."""

    LOCAL = "local"
    HOST = "host"
    EC2 = "ec2"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """What is trained. None leaves the choice to the job, which knows the device and the recipe.

    Attributes:
        lr: peak learning rate.
        device: "auto", "cpu", "cuda" or "mps".
        recipe: name of a recipe of the job.
        args: further arguments for the job, passed on unchanged.
    """

    model: int = 3
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 1
    lr: float | None = None
    device: str = "auto"
    recipe: str | None = None
    args: tuple[str, ...] = ()

    def argv(self) -> tuple[str, ...]:
        """The job's command line (docs/your-own-job.md, "What it gets")."""
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "args"}
        flags = {f"--{name.replace('_', '-')}": str(value) for name, value in named.items() if value is not None}
        return (*(part for flag in flags.items() for part in flag), *self.args)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """The training package: a folder that is synced, and the program to run in it.

    Attributes:
        source: the folder.
        module: run as `python -m MODULE` beside the folder's copy on the host, where there is no command.
        outputs: gitignore-style patterns of the results that are pulled.
        python: interpreter on the host; None: one with torch is looked for there.
        command: the user's own command, as it was typed; (): `module` is run.
        cwd: where the command runs, below `source`, POSIX style; "": in `source` itself.
        environment: what its packages come from: "uv.lock", "requirements.txt", ...; None: what the folder holds.
        packages: further ones, as pip takes them.
        vars: its environment variables.
        secrets: names of further ones, whose values are recorded nowhere.
        resume_args: further arguments of the command where it goes on.
        figures: name -> regular expression that finds its value in a line of the log.
    """

    source: str
    module: str = "job.train"
    outputs: tuple[str, ...] = ("**",)
    python: str | None = None
    command: tuple[str, ...] = ()
    cwd: str = ""
    environment: str | None = None
    packages: tuple[str, ...] = ()
    vars: Mapping[str, str] = field(default_factory=dict, hash=False)
    secrets: tuple[str, ...] = ()
    resume_args: tuple[str, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def shipped(self) -> bool:
        """Whether it is called as the training program that comes along, whose arguments and events are known."""
        return not self.command and self.module == "job.train"

    @property
    def line(self) -> str:
        """What runs, as one types it, for a screen: the command without what looks like a secret, else the module."""
        from cloudtrain.core.credentials import typed  # here, since `ls` and `--help` need none of its patterns

        return shlex.join(typed(self.command) or ("python", "-m", self.module))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends a run that nobody ends: seconds from the launch, US dollars, seconds of grace after the job's exit.

    None: the plan decides (2 h where something is billed, no limit where nothing is). `spot_restarts`: how often a run
    whose spot instance is taken back goes on by itself on another, within the same limits. `keep_s`: seconds that the
    launched machine stays up once the results are here, within the same limits; None: it ends then; of a run that has
    failed, `keep_on_failure_s` counts where it is longer. `starts_over`: it
    goes on by itself also where nothing that it could go on from had arrived. `results_gib`: so many GiB of results are
    fetched unasked; None: 5.
    """

    max_time_s: float | None = None
    max_cost_usd: float | None = None
    grace_s: float = 600.0
    if_i_vanish: str = "park"
    spot_restarts: int = 3
    starts_over: bool = True
    keep_s: float | None = None
    keep_on_failure_s: float | None = None
    results_gib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A machine that is already there.

    Attributes:
        name: what the user's own SSH configuration knows it by; None: nothing was asked of that.
        origin: what that configuration has decided, in words; "": nothing.
    """

    user: str
    address: str
    port: int = 22
    identity: str | None = None
    fingerprint: str | None = None
    name: str | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ec2Spec:
    """What to launch, or which instance to use.

    Attributes:
        types: instance types in the order to try them.
        rehearsal: use the emulated region on this computer; nothing is billed.
        faults: script for the emulated region (`emulator`), only with `rehearsal`.
        volume_gb: root volume in GiB; None: the image's own size.
        allow_cpu: train even if the GPU of a launched machine cannot be used.
        boot_limit_s: seconds that a new instance may take to run and to be logged in to; None: `provider.ec2.pace`.
        tags: further ones for all that is launched.
        private_ip: no public address is asked for, and the private one is connected to.
        user: login name; None: what the image tells, or one that the start-up data makes.
        from_run: name of the run whose kept machine is taken over; nothing is launched.
        identity, host_key: for `instance_id` alone: private key file, and the host's public key or its fingerprint
            ("SHA256:..."); without one the key is read from the instance's console output.
    """

    types: tuple[str, ...] = ("g4dn.xlarge",)
    instance_id: str | None = None
    from_run: str | None = None
    region: str | None = None
    profile: str | None = None
    spot: bool = False
    ami: str | None = None
    subnet: str | None = None
    security_group: str | None = None
    ssh_cidr: str | None = None
    volume_gb: int | None = None
    boot_limit_s: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    private_ip: bool = False
    allow_cpu: bool = False
    rehearsal: bool = False
    faults: tuple[str, ...] = ()
    identity: str | None = None
    user: str | None = None
    host_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeSpec:
    """The run whose checkpoint, or results, this one goes on from, and where in the training that is, in words."""

    run: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run as asked for."""

    name: str
    target: Target
    train: TrainSpec
    job: JobSpec
    runs_dir: str
    limits: Limits = field(default_factory=Limits)
    host: HostSpec | None = None
    ec2: Ec2Spec | None = None
    resume: ResumeSpec | None = None

    @property
    def folder(self) -> Path:
        """Where the run's results go on this computer."""
        return Path(self.runs_dir) / self.name

    @property
    def rehearsal(self) -> bool:
        """Whether it is a rehearsal, which nobody bills."""
        return self.ec2 is not None and self.ec2.rehearsal


def check_name(name: str) -> str:
    """`name`, if it can name a run: it becomes a folder, a tag and part of a host name.

    Raises:
        UsageError: it cannot.
    """
    if not RUN_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a run's name",
            hint="use 1 to 40 of a-z, 0-9 and -, such as brave-otter",
            code="bad_name",
        )
    return name


def check_train(train: TrainSpec) -> TrainSpec:
    """`train`, if every number in it can be trained with.

    Raises:
        UsageError: naming the first setting that cannot, and what is allowed.
    """
    epochs, size, device = train.epochs, train.batch_size, train.device
    rules = (
        (train.model in MODELS, f"there is no model {train.model}", "--model 1, 2 or 3"),
        (epochs is None or 1 <= epochs <= 10_000, f"cannot train {epochs} epochs", "--epochs 1 to 10000"),
        (size is None or 1 <= size <= 60_000, f"cannot train with batches of {size}", "--batch-size 1 to 60000"),
        (0 <= train.seed < 2**32, f"{train.seed} cannot be a seed", "--seed 0 to 4294967295"),
        (train.lr is None or 0 < train.lr < 100, f"cannot train with a learning rate of {train.lr}", "--lr above 0"),
        (
            device in DEVICES,
            f"there is no device {device!r}",
            meant(device, DEVICES, "--device auto, cpu, cuda or mps"),
        ),
    )
    for holds, message, hint in rules:
        if not holds:
            raise UsageError(message, hint=hint, code="bad_setting")
    return train
