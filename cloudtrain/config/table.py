"""Every setting, declared once: its name, how it is read, its words, its flag, and what of a run it decides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudtrain.core import figures
from cloudtrain.core.secrets import NAME
from cloudtrain.core.spec import DEVICES, RECIPES, RunSpec

_LONGEST_S = 100 * 365 * 86400.0
MOST_TAGS = 40
# Of the variables of a job those that are set on its machine, of what is there. All others may be set: LD_PRELOAD and
# PYTHONPATH act on the job alone, which is the user's own program anyway.
OWN_VARIABLES = frozenset({"PATH", "VIRTUAL_ENV", "PYTHONUNBUFFERED"})
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str | float | int) -> float:
    """Seconds of "90s", "30m", "1h", "1h30m" or a plain number of seconds.

    Raises:
        ValueError: it is none of these, or not above zero.
    """
    if not isinstance(text, str):
        seconds = _number(text)
    else:
        if not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*(?:s|min|m|h|d)\s*)+|\d+(?:\.\d+)?", text.strip()):
            raise ValueError(f"{_shown(text)} is not a duration such as 45m or 1h30m")
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|s|m|h|d)?", text)
        seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"{_shown(text)} is not above zero" if seconds <= 0 else f"{_shown(text)} is too long")
    return seconds


def _shown(value: Any) -> str:
    """A value for a message, shortened where it is long."""
    said = repr(value)
    return said if len(said) <= 200 else f"{said[:200]}…"


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in _text(value).split(",") if part.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) and "\0" not in part for part in value):
        return tuple(value)
    raise ValueError(f"{_shown(value)} is not a list of words")


def _arguments(value: Any) -> tuple[str, ...]:
    """Arguments of a program: a list as it is, one text as a shell would take it apart."""
    return _words(shlex.split(value) if isinstance(value, str) else value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(f"{_shown(value)} is not text in one line")
    return value


def _number(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if abs(number) > 1e100 or number != number:
        raise ValueError(f"{_shown(value)} is not a number")
    return number


def _tags(value: Any) -> dict[str, str]:
    """A table, or texts KEY=VALUE. Held to AWS's limits here, so that no launch is refused for them in its middle."""
    if not isinstance(value, Mapping):
        pairs = [text.partition("=") for text in _words(value)]
        if wrong := [key for key, equals, _ in pairs if not equals]:
            raise ValueError(f"{_shown(wrong[0])} is not KEY=VALUE")
        value = {key.strip(): text.strip() for key, _, text in pairs}
    if len(value) > MOST_TAGS:
        raise ValueError(f"{len(value)} tags are too many: {MOST_TAGS} at most, since AWS takes 50 with our own")
    for key, text in value.items():
        if not isinstance(text, str) or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", key + text):
            raise ValueError(f"the tag {_shown(key)} is not text in one line")
        if not 0 < len(key) <= 128 or len(text) > 256:
            raise ValueError(f"the tag {_shown(key)} is too long or has no name: AWS takes 128 and 256 characters")
        if key.lower().startswith(("aws:", "cloudtrain:", "emulator:")):
            raise ValueError(f"the tag {_shown(key)} cannot be set: names that begin so are AWS's own, or cloudtrain's")
    return dict(value)


def _texts(value: Any) -> dict[str, str]:
    """A table of texts, or texts NAME=VALUE."""
    if not isinstance(value, Mapping):
        pairs = [text.partition("=") for text in _words(value)]
        if wrong := [name for name, equals, _ in pairs if not equals]:
            raise ValueError(f"{_shown(wrong[0])} is not NAME=VALUE")
        value = {name.strip(): text for name, _, text in pairs}
    if wrong := [name for name, text in value.items() if not name or not isinstance(text, str) or "\0" in name + text]:
        raise ValueError(f"{_shown(wrong[0])} is not set to a text")
    return dict(value)


def _variables(value: Any) -> dict[str, str]:
    """A table of texts by names of variables, or texts NAME=VALUE. PATH, LD_PRELOAD and the like: `OWN_VARIABLES`."""
    made = _texts(value)
    _names(list(made))
    return made


def _names(value: Any) -> tuple[str, ...]:
    """Names of environment variables. What is none is not repeated: it may be what must not be shown."""
    names = _words(value)
    for name in names:
        if "=" in name:
            raise ValueError("only the name belongs here; your shell's history has the value now")
        if not NAME.fullmatch(name):
            raise ValueError("what was given cannot be the name of an environment variable")
        if name.upper().startswith("CLOUDTRAIN_") or name in OWN_VARIABLES:
            raise ValueError(
                f"{name} is set by cloudtrain; a command can set it itself: env {name}=... python train.py"
            )
    return names


def _expressions(value: Any) -> dict[str, str]:
    return dict(figures.checked(_texts(value)))


def _login(value: Any) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_.-]{0,31}", _text(value)):
        raise ValueError(f"{_shown(value)} cannot be a login name")
    return str(value)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        return value.lower() in {"1", "true", "yes", "on"}
    raise ValueError(f"{_shown(value)} is neither true nor false")


def _whole(value: Any) -> int:
    if isinstance(value, (str, int, float)) and _number(value).is_integer():
        return int(value)
    raise ValueError(f"{_shown(value)} is not a whole number")


def _amount(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"{_shown(value)} is not a number from 0 up")
    return number


# How it is read -> the type of what is typed after its flag, where that is not text.
_KINDS: Mapping[Callable[[Any], Any], Any] = {
    _whole: int,
    _amount: float,
    _truth: bool,
    **dict.fromkeys((_tags, _arguments, _variables, _names), list[str]),
}
_METAVARS: Mapping[Callable[[Any], Any], str] = {_whole: "N", _amount: "NUMBER", duration: "TIME"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. In the environment `max_time` is CLOUDTRAIN_MAX_TIME, as a flag --max-time.

    Attributes:
        read: makes its value of what stands in TOML, in the environment or after the flag.
        example: its value in the file that `init` writes, as TOML; its default where it has one.
        help: what it does, in that file and where `trust` asks.
        goes_to: the field of a `RunSpec` that it decides, such as "ec2.volume_gb"; "": none.
        flag: what `run --help` says; True: `help`, as a sentence; False: it has no flag.
        names: of the flag, where it is not called as the setting is.
        metavar: what is typed after it, as the help shows it; None: `takes` has it.
        usual: what holds where nobody sets it, for the help; "": nothing does.
        private: belongs to a person, an account or a computer, so that no run's `config.toml` has it.
    """

    name: str
    read: Callable[[Any], Any]
    example: str
    goes_to: str
    help: str
    flag: str | bool = False
    names: tuple[str, ...] = ()
    metavar: str | None = None
    usual: str = ""
    default: Any = None
    private: bool = False

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"CLOUDTRAIN_{self.name.upper()}"

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return self.names[0].partition("/")[0] if self.names else f"--{self.name.replace('_', '-')}"

    @property
    def kind(self) -> Any:
        """The type of what is typed after its flag."""
        return _KINDS.get(self.read, str)

    @property
    def takes(self) -> str:
        """What is typed after its flag, for the help: "N", "TIME", "REGION"."""
        return self.metavar or _METAVARS.get(self.read, self.option.lstrip("-").upper())

    @property
    def part(self) -> str:
        """The part of a `RunSpec` that it goes to; "": none."""
        return self.goes_to.rpartition(".")[0]

    @property
    def trained(self) -> bool:
        """Whether it is of what is trained, which stays as it is where a run goes on from another's checkpoint."""
        return self.part in ("train", "job") and self.name not in ("device", "python")

    def value_in(self, spec: RunSpec) -> Any:
        """What a run has of it; None where nobody has set that, or the run has no such part."""
        part = getattr(spec, self.part) if self.part else spec
        return getattr(part, self.goes_to.rpartition(".")[2], None)


# In the order in which a person meets them: heading in the file that `init` writes -> settings.
# fmt: off
GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "What is trained": (
        Setting("model", _whole, "3", "train.model",
                "network of the shipped job: 1, 2 or 3", "Network of the training program that comes along.",
                names=("--model", "-m"), metavar="1|2|3", usual="3", default=3),
        Setting("recipe", _text, '"best"', "train.recipe",
                "best, fast or seed; the hyper-parameters that come with it", "Its hyper-parameters.",
                metavar="|".join(RECIPES), usual="best; fast in a rehearsal"),
        Setting("epochs", _whole, "15", "train.epochs", "passes over the training set, instead of the recipe's",
                "Passes over the training set.", usual="the recipe's"),
        Setting("batch_size", _whole, "64", "train.batch_size",
                "images per step, instead of the recipe's", "Images per step.", usual="the recipe's"),
        Setting("lr", _amount, "0.01", "train.lr",
                "peak learning rate, instead of the recipe's", "Peak learning rate.", usual="the recipe's"),
        Setting("seed", _whole, "1", "train.seed",
                "for all random numbers", "Seed for all random numbers.", usual="1", default=1),
        Setting("device", _text, '"auto"', "train.device",
                "auto, cpu, cuda or mps", "What it trains on.", metavar="|".join(DEVICES),
                usual="auto", default="auto"),
        Setting("args", _arguments, '["--subset", "6000"]', "train.args", "more arguments for the training program"),
    ),
    "Your own program, instead of the one that comes along": (
        Setting("job", _text, '"train"', "job.source",
                "its folder; it is sent to the machine", "Folder of a training package, which is sent to the machine.",
                metavar="FOLDER", usual="the one that comes along"),
        Setting("module", _text, '"train.main"', "job.module", "what `python -m` runs there"),
        Setting("python", _text, '"~/miniconda3/envs/ml/bin/python"', "job.python",
                "interpreter on the machine, instead of looking for torch",
                "Python on the machine.", metavar="PATH", usual="one with torch is looked for", private=True),
        Setting("outputs", _words, '["**", "!*.tmp"]', "job.outputs",
                "which of its results are pulled; a later pattern wins"),
        Setting("command", _arguments, '"python train.py --lr 3e-4"', "job.command",
                "run in the project, instead of a module; flags after `cloudtrain run --` are appended"),
        Setting("cwd", _text, '"examples/mnist"', "job.cwd", "where the command runs, below the project"),
        Setting("environment", _text, '"requirements.txt"', "job.environment",
                "what its packages come from: uv.lock, requirements.txt, environment.yml, dockerfile, image NAME, ..."
                " or host (as it is)"),
        Setting("packages", _arguments, '["tqdm", "einops>=0.8"]', "job.packages",
                "further ones, as pip takes them", "Python package that your program needs; may be repeated.",
                names=("--with",), metavar="PACKAGE"),
        Setting("vars", _variables, '{ WANDB_PROJECT = "digits" }', "job.vars",
                "its environment variables", "Environment variable of the training; may be repeated.",
                names=("--env",), metavar="NAME=VALUE"),
        Setting("secrets", _names, '["WANDB_API_KEY"]', "job.secrets",
                "names of variables of yours that it gets, too; their values are recorded nowhere",
                "Variable of this shell that it gets, too, and whose value is kept nowhere; may be repeated.",
                names=("--secret",), metavar="NAME"),
        Setting("resume_args", _arguments, '["--resume", "last.ckpt"]', "job.resume_args",
                "further arguments of the command where it goes on from what a run has left"),
        Setting("figures", _expressions, "{ val_loss = 'val loss ([0-9.]+)' }", "job.figures",
                "regular expressions that find figures in lines of the log"),
        Setting("runs_dir", _text, '"runs"', "runs_dir",
                "folder for results, relative to this file", default="runs", private=True),
    ),
    "The machine": (
        Setting("instance", _words, '["g4dn.xlarge", "g6.xlarge"]', "ec2.types",
                "EC2 types, tried in this order", "EC2 type to launch, or several (A,B) to try in order.",
                names=("--instance", "-i"), metavar="TYPE[,TYPE]"),
        Setting("region", _text, '"us-east-1"', "ec2.region", "AWS Region", True, usual="AWS_REGION, or the profile's"),
        Setting("profile", _text, '"student"', "ec2.profile", "AWS profile", True,
                usual="AWS_PROFILE, or AWS's own", private=True),
        Setting("spot", _truth, "false", "ec2.spot",
                "spot instances: cheaper, but AWS may take them back", "Launch a spot instance, or an on-demand one.",
                names=("--spot/--on-demand",), usual="--on-demand"),
        Setting("spot_restarts", _whole, "3", "limits.spot_restarts",
                "how many times a run goes on by itself after its spot instance is taken back",
                "Times it may go on by itself after losing its spot instance.", usual="3"),
        Setting("ami", _text, '"ami-0123456789abcdef0"', "ec2.ami",
                "image, instead of the newest Deep Learning AMI",
                "Image to launch.", usual="the newest Deep Learning AMI"),
        Setting("login", _login, '"ec2-user"', "ec2.user",
                "user who logs in to --ami; created, with sudo, if the image lacks it",
                "Login user of your own image.", usual="what the image's name shows", private=True),
        Setting("tags", _tags, '{ project = "vision" }', "ec2.tags",
                "on everything a launch creates, besides cloudtrain's own",
                "Tag for everything launched; may be repeated.", names=("--tag",), metavar="KEY=VALUE", private=True),
        Setting("subnet", _text, '"subnet-0123456789abcdef0"', "ec2.subnet",
                "instead of the default VPC's", "Subnet to launch in.", usual="one of the default VPC"),
        Setting("private_ip", _truth, "false", "ec2.private_ip",
                "reach it at its private address, over your VPN: no public one is requested",
                "Reach it at its private address, over your VPN; no public one.", names=("--private-ip/--public-ip",),
                usual="--public-ip"),
        Setting("security_group", _text, '"sg-0123456789abcdef0"', "ec2.security_group",
                "instead of creating one", "Security group to use.", metavar="GROUP", usual="one is created"),
        Setting("ssh_cidr", _text, '"203.0.113.0/24"', "ec2.ssh_cidr",
                "addresses that may reach port 22, instead of yours",
                "Addresses that may reach port 22.", metavar="CIDR", usual="yours alone", private=True),
        Setting("volume_size", _whole, "60", "ec2.volume_gb", "root disk in GiB", True,
                metavar="GIB", usual="the image's"),
        Setting("allow_cpu", _truth, "false", "ec2.allow_cpu",
                "train even if the GPU of a launched machine cannot be used",
                "Train even if a launched machine's GPU cannot be used.", names=("--allow-cpu",)),
        Setting("boot_limit", duration, '"10m"', "ec2.boot_limit_s",
                "how long a new machine may take to answer; then it is ended"),
        Setting("identity", _text, '"~/.ssh/id_ed25519"', "host.identity",
                "private key file for --host or --instance-id", True, metavar="FILE", private=True),
    ),
    "Money": (
        Setting("max_time", duration, '"1h"', "limits.max_time_s",
                "the machine ends itself after this time", "End it after this time, such as 45m.", usual="2h on EC2"),
        Setting("max_cost", _amount, "1.50", "limits.max_cost_usd",
                "or before it costs more than this, in US dollars",
                "End it before it costs more than this, in US dollars.", metavar="USD"),
        Setting("grace", duration, '"10m"', "limits.grace_s",
                "how long it waits for you after training",
                "How long the machine waits for you after training has ended.", usual="10m"),
        Setting("if_i_vanish", _text, '"park"', "limits.if_i_vanish",
                "park keeps the disk with the results, terminate deletes it",
                "At its limit, with results on its disk.", metavar="park|terminate", usual="park"),
        Setting("confirm_above", _amount, "0.0", "",
                "US dollars: a plan that cannot cost more needs no confirmation", default=0.0),
    ),
    "Here": (
        Setting("trickle_rate", _amount, "4.0", "",
                "MiB per second at which results come down during training; 0: only at its end", default=4.0),
        Setting("results_limit", _amount, "5.0", "limits.results_gib",
                "GiB of results that are fetched unasked; more than that waits on its machine, which parks"),
        Setting("keep_on_host", _truth, "false", "",
                "your own host keeps a run's folder even once all of it is here and verified", default=False),
        Setting("plain", _truth, "false", "", "one fact per line, nothing redrawn: for screen readers"),
    ),
}
# fmt: on
# By name.
SETTINGS: Mapping[str, Setting] = {each.name: each for group in GROUPS.values() for each in group}
