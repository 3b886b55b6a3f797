"""Options of `cloudtrain run`, in the order of its help; what other commands have too is in `options.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import OnInterrupt as Choice
from cloudtrain.cli.options import complete_run

Model = Annotated[int | None, typer.Option("--model", "-m", help="1, 2 or 3.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training set, instead of the recipe's.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random number.")]
Lr = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Recipe = Annotated[str | None, typer.Option(help="Training recipe: best, fast or seed.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Config = Annotated[
    Path | None, typer.Option(help="File of settings that beats the project's, such as runs/NAME/config.toml.")
]
Job = Annotated[str | None, typer.Option(help="Folder of a training package, instead of the shipped one.")]
Python = Annotated[
    str | None, typer.Option(metavar="PATH", help="Python on the machine; else one with torch is looked for there.")
]
AllowCpu = Annotated[
    bool | None, typer.Option("--allow-cpu", help="Train also where a launched machine's GPU cannot be used.")
]
Local = Annotated[bool, typer.Option("--local", help="Train on this computer.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Rehearse the EC2 run here: emulated region, this CPU, nothing is billed.")
]
Instance = Annotated[str | None, typer.Option(help="EC2 type to launch; several by comma, in order.")]
InstanceId = Annotated[str | None, typer.Option(help="An instance of yours; it is not terminated.")]
Host = Annotated[str | None, typer.Option(help="A machine that is there: USER@ADDRESS[:PORT].")]
Identity = Annotated[str | None, typer.Option(help="Private key file for --host or --instance-id.")]
HostKey = Annotated[str | None, typer.Option(help="The machine's key, SHA256:... as ssh-keygen -l shows.")]
Spot = Annotated[bool | None, typer.Option("--spot/--on-demand", help="Launch a spot instance, or do not.")]
SpotRestarts = Annotated[
    int | None, typer.Option(help="How often it goes on by itself when its spot instance is taken back: 3.")
]
Ami = Annotated[str | None, typer.Option(help="Image, instead of the newest Deep Learning AMI.")]
Login = Annotated[str | None, typer.Option(help="Who logs in to an image of your own, where its name does not tell.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="KEY=VALUE", help="Put on all that is launched; may be repeated."),
]
Subnet = Annotated[str | None, typer.Option(help="Subnet, instead of the default VPC's.")]
PrivateIp = Annotated[
    bool | None,
    typer.Option("--private-ip/--public-ip", help="Reach it at its private address, over your VPN; no public one."),
]
SecurityGroup = Annotated[str | None, typer.Option(help="Security group, instead of an own one.")]
SshCidr = Annotated[str | None, typer.Option(help="Addresses that may reach port 22, instead of yours.")]
VolumeSize = Annotated[int | None, typer.Option(help="Root disk in GiB.")]
Fault = Annotated[list[str] | None, typer.Option(help="Fault to play in a rehearsal; may be repeated.")]
MaxTime = Annotated[str | None, typer.Option(help="End it after this time: 45m, 2h (the default on EC2).")]
MaxCost = Annotated[float | None, typer.Option(help="End it before it costs more US dollars than this.")]
Grace = Annotated[
    str | None, typer.Option(help="After the training has ended, how long the machine waits for you: 10m.")
]
IfIVanish = Annotated[
    str | None, typer.Option(help="At its limit, with results on its disk: park (the default) or terminate.")
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help="Go on from this run's checkpoint, here or elsewhere.", autocompletion=complete_run
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the run; two words if left out.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Leave once it trains.")]
OnInterrupt = Annotated[
    Choice, typer.Option("--on-interrupt", help="What SIGTERM does, and Ctrl-C without a terminal to ask at.")
]
