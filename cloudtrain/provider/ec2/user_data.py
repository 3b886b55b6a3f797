"""What an instance is told at birth: its host key, who may log in, and when it ends itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cloudtrain.core.errors import Refused

# EC2's limit on user data before base64 (EC2 User Guide, "user data is limited to 16 KB").
LIMIT_BYTES = 16 * 1024

# Where a moved end is left, so that a reboot does not bring back the one of this script: "SECONDS CALENDAR".
EXTENDED = "/etc/cloudtrain/lease"
HONOURED = f"""\
if read -r moved calendar < "$root{EXTENDED}" && [ "$moved" -gt 0 ]; then expiry=$calendar; fi 2> /dev/null
"""
# A machine that was parked has a new lease, and an end that was promised to the old one may be later.
DROPPED = f"""\
rm -f "$root{EXTENDED}"
"""

# Runs at every boot, before sshd accepts a login. `--no-block`: at this point of the boot a start that waits would wait
# for itself. Times are UTC in the one spelling that systemd takes; `Persistent` fires a time that passed while off.
# Its last part: a boot clears the console, and cloud-init prints the host keys at the first one only; whoever has lost
# the pin reads the present one there (`adopt`). Not before cloud-init has made the keys of this instance.
LEASE_SCRIPT = """\
root="${{CLOUDTRAIN_ROOT:-}}"
units="$root/etc/systemd/system"
mkdir -p "$units"
expiry='{expiry}'
{extended}cat > "$units/cloudtrain-lease.service" <<'UNIT'
[Unit]
Description=End this instance: its cloudtrain lease is over

[Service]
Type=oneshot
ExecStart=systemctl --no-block poweroff
UNIT
cat > "$units/cloudtrain-lease.timer" <<UNIT
[Unit]
Description=Lease of this cloudtrain instance

[Timer]
OnCalendar=$expiry
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT
systemctl daemon-reload
systemctl enable cloudtrain-lease.timer
systemctl --no-block start cloudtrain-lease.timer
key="$root/etc/ssh/ssh_host_ed25519_key.pub"
if [ -e "$root/var/lib/cloud/instance/sem/config_ssh" ] && [ -s "$key" ]; then
  {{
    echo '-----BEGIN SSH HOST KEY KEYS-----'
    cat "$key"
    echo '-----END SSH HOST KEY KEYS-----'
  }} 2> /dev/null >> "$root/dev/console" || true
fi
"""


def render(*, host_private: str, host_public: str, client_public: str, expires_at: float) -> str:
    """The cloud-config of an instance. The private host key in it serves the first login only (`trust.rotate`).

    Args:
        host_private, host_public: ed25519 host key in OpenSSH format.
        client_public: the one key that may log in.
        expires_at: unix seconds at which the instance powers itself off.

    Raises:
        Refused: it is larger than EC2 takes.
    """
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public.strip()},
        "ssh_authorized_keys": [client_public.strip()],
        "bootcmd": _lease(expires_at, HONOURED),
    }
    text = _text(config)
    if len(text.encode()) > LIMIT_BYTES:
        raise Refused(
            f"the instance's start-up data is {len(text.encode())} bytes, EC2 takes {LIMIT_BYTES}",
            consequence="nothing was created",
            code="user_data",
        )
    return text


def lease_only(expires_at: float) -> str:
    """The cloud-config for the next boot of a machine that was stopped: a new lease. It knows its keys already."""
    return _text({"bootcmd": _lease(expires_at, DROPPED)})


def calendar(expires_at: float) -> str:
    """A moment in the one spelling that systemd's `OnCalendar` takes."""
    return datetime.fromtimestamp(int(expires_at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _lease(expires_at: float, extended: str) -> list[list[str]]:
    return [["sh", "-c", LEASE_SCRIPT.format(expiry=calendar(expires_at), extended=extended)]]


def _text(config: Mapping[str, Any]) -> str:
    # JSON is YAML, and its quoting has no surprises.
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"
