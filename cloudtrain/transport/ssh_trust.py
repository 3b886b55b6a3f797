"""Which host keys the user has agreed to: `hosts.json` in the state folder. A pinned key is never replaced here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import filelock

from cloudtrain.core.disk import private_dir, state_dir, write_durably
from cloudtrain.core.errors import Busy, HostKeyMismatch, StoreDamaged
from cloudtrain.transport.ssh_keys import PublicKey, fingerprint, parse_public_key

_LOCK_S = 10.0


def entry_name(address: str, port: int) -> str:
    """How a host is listed: `[example.org]:22`."""
    return f"[{address.lower()}]:{port}"


class PinnedHosts:
    """The pinned keys: `{"v": 1, "hosts": {"[example.org]:22": {"key": ..., "fingerprint": ..., "since": unix s}}}`.

    Args:
        path: the file; None: `hosts.json` in the state folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_dir() / "hosts.json"

    def get(self, address: str, port: int) -> PublicKey | None:
        """The key pinned for a host, or None if nobody has agreed to one yet.

        Raises:
            StoreDamaged: the file cannot be read. A damaged list is not an empty one.
        """
        entry = self._read().get(entry_name(address, port))
        return None if entry is None else str(entry["key"])

    def pin(self, address: str, port: int, key: PublicKey) -> None:
        """Trust `key` for a host from now on; on the disk when this returns.

        Raises:
            HostKeyMismatch: another key is pinned already.
            Busy: another command has held the list for 10 s.
            StoreDamaged: the file cannot be read or written.
        """
        name = entry_name(address, port)
        try:
            private_dir(self.path.parent)
            with filelock.FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_S):
                hosts = self._read()
                if name in hosts:
                    if parse_public_key(hosts[name]["key"]) != parse_public_key(key):
                        raise self.mismatch(address, port, hosts[name]["key"], fingerprint(key))
                    return
                hosts[name] = {"key": key, "fingerprint": fingerprint(key), "since": int(time.time())}
                text = json.dumps({"v": 1, "hosts": hosts}, indent=1, sort_keys=True) + "\n"
                write_durably(self.path, text.encode())
        except filelock.Timeout as error:
            raise Busy(f"another command is using {self.path}", hint="try again", code="hosts_busy") from error
        except OSError as error:
            raise StoreDamaged(
                f"cannot write {self.path}: {error.strerror or error}",
                consequence="the host was not contacted",
            ) from error

    def mismatch(self, address: str, port: int, pinned: PublicKey, presented: str) -> HostKeyMismatch:
        """The error for a host that is not the one that was agreed to; `presented` is a fingerprint."""
        return HostKeyMismatch(
            f"the host key of {entry_name(address, port)} is not the trusted one",
            detail=f"trusted:   {fingerprint(pinned)}\npresented: {presented}",
            consequence="nothing was sent; another machine answers at this address, or its key was replaced",
            hint=f'if the machine was replaced: delete "{entry_name(address, port)}" from {self.path}, then try again',
        )

    def _read(self) -> dict[str, Any]:
        try:
            hosts = json.loads(self.path.read_bytes())["hosts"]
            for entry in hosts.values():
                parse_public_key(entry["key"])
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreDamaged(f"cannot read {self.path}: {error.strerror or error}") from error
        except Exception as error:  # whatever shape the damage has
            raise StoreDamaged(
                f"{self.path} is damaged",
                hint="repair it, or move it away: every host's key is then asked for again",
                consequence="no host was contacted",
            ) from error
        return dict(hosts)
