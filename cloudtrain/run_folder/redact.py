"""What must not stand in a file that may be published: accounts, people, computers, addresses, paths, credentials.

The receipt is made of chosen fields; what others wrote in them (a job's events, its arguments, names of images) comes
through here. When in doubt a word is taken out: a receipt that says less harms nobody.
"""

from __future__ import annotations

import getpass
import ipaddress
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core import credentials, disk, secrets
from cloudtrain.core.host import HostFacts
from cloudtrain.core.notes import RunNotes
from cloudtrain.store import Run

# Login names that every machine of a kind has; they say nothing about anybody.
_EVERYBODY = frozenset({"root", "ubuntu", "ec2-user", "admin", "cloudtrain", "user", "local", "localhost"})

# Each is done in a time that grows with the text alone, as those of `core/credentials.py`.
_PATTERNS: credentials.Patterns = (
    (re.compile(r"arn:aws[\w-]*:[^\s\"',;]+"), "<arn>"),
    *credentials.PATTERNS,
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*"), "<address>"),
    (re.compile(r"\b(?:ec2|ip)-\d{1,3}(?:-\d{1,3}){3}[\w.-]*"), "<address>"),
    (re.compile(r"(?<![\w])(?:\d{4}-\d{4}-\d{4}|\d{12})(?![\w])"), "<account>"),
    # Windows' paths and shares, then POSIX ones; a URL's slashes are neither.
    (re.compile(r"(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)[^\s\"'<>|]*"), "<path>"),
    (re.compile(r"(?<![\w/.~-])(?:~[\w.-]*/|/(?!/))[^\s\"'<>|:,;)]+"), "<path>"),
)
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,})(?![\w:]|\.\d)")


class Redaction:
    """Takes out of texts what is private to this computer and to `run`.

    Args:
        notes: the run's journal.
    """

    def __init__(self, run: Run, notes: RunNotes) -> None:
        spec = run.plan.spec
        paths = [_home(), disk.state_dir(), disk.cache_dir(), disk.config_dir()]
        paths += [Path(spec.runs_dir), Path(spec.runs_dir).parent, Path(spec.job.source)]
        words = [_user(), platform.node(), platform.node().partition(".")[0]]
        facts = notes.host or HostFacts()
        texts: list[str | None] = [facts.home, facts.python]
        if spec.host is not None:
            words += [spec.host.user, spec.host.address, spec.host.name or ""]
            texts.append(spec.host.identity)
        if spec.ec2 is not None:
            words.append(spec.ec2.profile or "")
            texts.append(spec.ec2.identity)
        if run.instance is not None:
            words += [run.instance.address or "", run.instance.user or ""]
        known = [str(path) for path in paths] + [text for text in texts if isinstance(text, str)]
        self._paths = [_prefix(path) for path in sorted(set(known), key=len, reverse=True) if len(path) > 1]
        self._words = [
            _word(word)
            for word in sorted(set(words), key=len, reverse=True)
            if len(word) > 1 and word not in _EVERYBODY
        ]

    def __call__(self, value: Any) -> Any:
        """`value` with every text in it made public; numbers and the like are as they were."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._text(str(key)): self._named(str(key), inner) for key, inner in value.items()}
        if isinstance(value, Iterable):
            return credentials.listed(list(value), self)
        return value

    def _named(self, name: str, value: Any) -> Any:
        return "<secret>" if isinstance(value, str) and credentials.NAMES_ONE.search(name) else self(value)

    def _text(self, text: str) -> str:
        # Paths first, since a home folder may hold spaces; names last, since they are parts of addresses.
        text = credentials.without(secrets.hide(text), (*self._paths, *_PATTERNS, *self._words))
        return _ADDRESS.sub(_unless_no_address, text)


def _prefix(path: str) -> tuple[re.Pattern[str], str]:
    """A folder that is known, with what follows it in the same word: it may hold spaces, unlike a path that is not."""
    return re.compile(re.escape(path) + r"(?![\w-])[^\s\"'<>|:,;)]*"), "<path>"


def _word(word: str) -> tuple[re.Pattern[str], str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", re.IGNORECASE), "<private>"


def _unless_no_address(found: re.Match[str]) -> str:
    text = found[0]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text
    return text if text == "::" else "<address>"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # as for a user without a name
        return disk.state_dir()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return ""
