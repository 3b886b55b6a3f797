"""The lease as it stands on an instance: a small program that looks twice a minute whether the time is over.

It looks at the clock and at how long the machine has been up, and acts if either says so: a clock may be hours off, or
be set while it runs. systemd keeps it going, and a timer starts it again should it ever be stopped.

    /run/cloudtrain-lease     "END LIMIT CARRIED", of this boot: unix seconds; seconds up, in all boots of this lease;
                              seconds up in those before this one
    /etc/cloudtrain/lease     "END LIMIT PROMISE", for the boots to come; PROMISE is the start-up data's "END SECONDS"
    /etc/cloudtrain/age       seconds up so far, in all boots of this lease

Below `/run` is memory, so a machine whose disk is full takes a new lease too.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

# What is left undone here stays a machine that is billed, so what cannot be read counts as over. In an emulated
# machine, whose folder may be deleted under the program, `systemctl` must never be this computer's.
# The start-up data tells each boot its lease; a boot that has not been told for 10 min goes by what the disk says.
# The age is written in place, which a full disk allows; a console that is stuck holds up nothing.
PROGRAM = """\
root="${CLOUDTRAIN_ROOT:-}"
live="$root/run/cloudtrain-lease" kept="$root/etc/cloudtrain/lease" age="$root/etc/cloudtrain/age"
systemctl=$(command -v systemctl)
case "$systemctl" in "$root"/*) ;; *) exit 1 ;; esac
exec 2> /dev/null
brief=
if command -v timeout > /dev/null; then brief='timeout 60'; fi
say() { (echo "cloudtrain-lease: $*" >> "$root/dev/console") & }
finish() {
  for how in '' --check-inhibitors=no --force '--force --force'; do
    say "$1: systemctl${how:+ $how} poweroff"
    sync &
    if told=$($brief "$systemctl" $how poweroff 2>&1); then pause=90; else pause=5; say "it failed: $told"; fi
    sleep "$pause"
  done
}
end=
while [ -d "$root/etc" ]; do
  now=$(date +%s) || now=0
  up=0
  read -r up rest < "$root/proc/uptime"
  up=${up%.*}
  if read -r end limit carried < "$live"; then :
  elif [ "$up" -ge 600 ] && read -r end limit rest < "$kept"; then carried=0
  elif [ -z "$end" ] && [ "$up" -lt 600 ]; then sleep 5; continue
  fi
  lived=$((carried + up))
  printf '%-10d\\n' "$lived" 1<> "$age"
  if [ "$now" -lt "$end" ] && [ "$lived" -lt "$limit" ]; then
    pause=30
    for left in $((end - now)) $((limit - lived)); do [ "$left" -ge "$pause" ] || pause=$left; done
    sleep "$pause"
  else
    finish "the lease is over (clock $now of $end, up $lived s of $limit s)"
  fi
done
"""

# Runs at every boot, before sshd accepts a login. `--no-block`: at this point of the boot a start that waits would wait
# for itself. A file that a full disk does not take stays the one of before. A promise that is not the one of before is
# a new lease: nothing of the old one holds, neither a moved end nor the time that it ran.
# Without the default dependencies a shutdown that hangs does not stop the program, which then forces it.
# Its last part: a boot clears the console, and cloud-init prints the host keys at the first one only; whoever has lost
# the pin reads the present one there (`adopt`). Not before cloud-init has made the keys of this instance.
_SCRIPT = """\
root="${CLOUDTRAIN_ROOT:-}"
put() { mkdir -p "${1%/*}"; { cat > "$1.new" && mv -f "$1.new" "$1"; } 2> /dev/null || rm -f "$1.new"; }
end=@END@ limit=@SECONDS@ carried=0
if { read -r moved lasts promise < "$root/etc/cloudtrain/lease"; } 2> /dev/null && [ "$promise" = "$end $limit" ]; then
  end=$moved limit=$lasts
  { read -r carried < "$root/etc/cloudtrain/age"; } 2> /dev/null
else
  rm -f "$root/etc/cloudtrain/age"
  echo "$end $limit $end $limit" | put "$root/etc/cloudtrain/lease"
fi
echo "$end $limit ${carried:-0}" | put "$root/run/cloudtrain-lease"
put "$root/etc/cloudtrain/lease.sh" <<'PROGRAM'
@PROGRAM@PROGRAM
put "$root/etc/systemd/system/cloudtrain-lease.service" <<UNIT
[Unit]
Description=End this instance when its cloudtrain lease is over
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh "$root/etc/cloudtrain/lease.sh"
Restart=always
RestartSec=5
OOMScoreAdjust=-1000
StandardOutput=null
StandardError=null

[Install]
WantedBy=sysinit.target
UNIT
put "$root/etc/systemd/system/cloudtrain-lease.timer" <<'UNIT'
[Unit]
Description=Start the lease of this cloudtrain instance again, should it have ended
IgnoreOnIsolate=yes

[Timer]
OnBootSec=30
OnUnitInactiveSec=30
AccuracySec=1s

[Install]
WantedBy=timers.target
UNIT
systemctl daemon-reload
systemctl enable cloudtrain-lease.service cloudtrain-lease.timer
systemctl --no-block restart cloudtrain-lease.service cloudtrain-lease.timer
key="$root/etc/ssh/ssh_host_ed25519_key.pub"
if [ -e "$root/var/lib/cloud/instance/sem/config_ssh" ] && [ -s "$key" ]; then
  {
    echo '-----BEGIN SSH HOST KEY KEYS-----'
    cat "$key"
    echo '-----END SSH HOST KEY KEYS-----'
  } 2> /dev/null >> "$root/dev/console" || true
fi
"""

# As root, by `sh -c`. What the next boot reads is in place last: no boot honours what this machine has not taken.
# The second half is for a machine that an earlier release has launched: its lease is the calendar line of a timer.
_MOVE = """\
set -eu
root="${CLOUDTRAIN_ROOT:-}"
live="$root/run/cloudtrain-lease" kept="$root/etc/cloudtrain/lease"
mkdir -p "$root/etc/cloudtrain"
if [ -e "$live" ]; then
  read -r rest rest carried < "$live"
  read -r up rest < "$root/proc/uptime"
  read -r rest rest promise < "$kept"
  limit=$((carried + ${up%.*} + @SECONDS@))
  echo "@END@ $limit $promise" > "$kept.new"
  echo "@END@ $limit $carried" > "$live.new"
  mv -f "$live.new" "$live"
  systemctl restart cloudtrain-lease.service
  systemctl is-active --quiet cloudtrain-lease.service
else
  unit="$root/etc/systemd/system/cloudtrain-lease.timer"
  echo '@END@ @CALENDAR@' > "$kept.new"
  sed 's/^OnCalendar=.*/OnCalendar=@CALENDAR@/' "$unit" > "$unit.new"
  grep -q '^OnCalendar=@CALENDAR@$' "$unit.new"
  mv -f "$unit.new" "$unit"
  systemctl daemon-reload
  systemctl restart cloudtrain-lease.timer
  systemctl is-active --quiet cloudtrain-lease.timer
fi
mv -f "$kept.new" "$kept"
"""


def script(expires_at: float, lasts_s: float) -> str:
    """What a boot runs as root, by `sh -c`: the lease in its place and begun.

    Args:
        expires_at: unix seconds at which the machine ends itself.
        lasts_s: seconds from now to then, so that a machine whose clock is wrong ends too.
    """
    text = _SCRIPT.replace("@END@", str(int(expires_at))).replace("@SECONDS@", str(math.ceil(lasts_s)))
    return text.replace("@PROGRAM@", PROGRAM)


def move(expires_at: float, lasts_s: float) -> str:
    """What moves the end of a running machine, as root, by `sh -c`; exit status 0: it has taken it. As `script`."""
    at = datetime.fromtimestamp(int(expires_at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    text = _MOVE.replace("@END@", str(int(expires_at))).replace("@CALENDAR@", at)
    return text.replace("@SECONDS@", str(max(0, math.ceil(lasts_s))))
