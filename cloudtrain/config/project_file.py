"""The `cloudtrain.toml` that `cloudtrain init` writes: every setting, what it does, and nothing switched on."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.config.files import NAME
from cloudtrain.config.table import GROUPS, SETTINGS
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError


def text() -> str:
    """The file: each setting commented out, with its default where it has one."""
    lines = [
        "# Settings of cloudtrain for this folder and those below it. A flag beats CLOUDTRAIN_* in the environment,",
        "# which beats this file. `cloudtrain config show --origin` shows what applies and why. What this sets of",
        "# machine and money counts only once `cloudtrain trust` has asked you: it may come from somebody else.",
    ]
    for heading, group in GROUPS.items():
        shown = [f"{each.name} = {each.example}" for each in group]
        width = max(map(len, shown))
        lines += ["", f"# {heading}"]
        lines += [f"# {line:<{width}}  # {each.help}" for line, each in zip(shown, group, strict=True)]
    return "\n".join(lines) + "\n"


def write(folder: Path) -> list[tuple[Path, str]]:
    """Write the file into `folder`, and the runs' folder into its `.gitignore`. What was done, in words.

    Raises:
        UsageError: there is one already, or the folder cannot be written.
    """
    path = folder / NAME
    if path.exists():
        raise UsageError(
            f"{path} already exists",
            hint="cloudtrain config show --origin shows what it sets",
            consequence="nothing was changed",
            code="exists",
        )
    try:
        disk.write_durably(path, text().encode(), mode=0o644)
        done = [(path, f"{len(SETTINGS)} settings, explained")]
        ignored = f"{SETTINGS['runs_dir'].default}/"
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
