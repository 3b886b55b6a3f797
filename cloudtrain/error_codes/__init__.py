"""Every stable error code: what it means, what it means for money and data, what to type next.

Scripts may rely on the codes; they are never reused for something else. An error that says no consequence or no next
command of its own gets those of its code (`completed`). docs/errors.md is made of this.
"""

from __future__ import annotations

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.error_codes import aws, here, host, job, machines, runs
from cloudtrain.error_codes.entry import ErrorCode, Group

GROUPS: tuple[Group, ...] = (here.GROUP, aws.GROUP, machines.GROUP, host.GROUP, runs.GROUP)
"""The codes of commands and runs."""

JOB: Group = job.GROUP
"""What the shipped training package calls its own failures: `cause` of a `training_failed`."""

CODES: dict[str, ErrorCode] = {entry.code: entry for group in GROUPS for entry in group.entries}


def completed(error: CloudtrainError) -> tuple[str | None, str | None]:
    """Consequence and next command of `error`: its own, else those of its code."""
    entry = CODES.get(error.code)
    if entry is None:
        return error.consequence, error.hint
    return error.consequence or entry.means, error.hint or entry.next
