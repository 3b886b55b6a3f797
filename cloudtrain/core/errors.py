"""Every failure that a user can meet, as one class each.

The tree (exit code of the command in brackets, "Exit codes" in README.md):

    CloudtrainError                     [1]
    ├── UsageError                      [2]   bad flags, names, settings, folders
    │   ├── UnknownRun                  [2]
    │   ├── ConfirmationNeeded          [2]
    │   └── StoreDamaged                [2]
    ├── SignInError                     [4]   credentials or permission
    ├── Refused                         [5]   nothing was billed
    │   ├── QuotaExceeded               [5]
    │   └── NoCapacity                  [5]
    ├── ConnectionFailed                [6]   connection or transfer; the machine may still be running
    │   ├── HostKeyMismatch             [6]
    │   └── ArtifactRefused             [6]
    ├── RunLost                         [6]   the host no longer runs it and left no exit record
    ├── LimitReached                    [7]   time or cost limit, or spot reclaim
    ├── Busy                            [8]   still running; another command has the run
    └── Interrupted                     [130] Ctrl-C, or the process was asked to end

An error says what happened (`message`), what it means for money and data (`consequence`) and the next command
(`hint`); what it leaves out of the last two, `error_codes.completed` fills in. `code` is stable and documented; scripts
may rely on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    TRAINING_FAILED = 3
    SIGN_IN = 4
    REFUSED = 5
    CONNECTION = 6
    LIMIT = 7
    STILL_RUNNING = 8
    INTERRUPTED = 130


class CloudtrainError(Exception):
    """Base of all expected failures.

    Args:
        message: one line, lower case, no full stop: what happened.
        hint: the next command or action, or None.
        consequence: what it means for money and data ("nothing was created"), or None: `default_consequence`.
        code: overrides the class's stable code where one class serves several.
        detail: further human-readable lines, such as the end of a traceback.

    Attributes:
        since: of a machine that is gone or parked, unix seconds since when, by EC2's word; None: it does not say.
    """

    since: float | None = None

    code: str = "unexpected"
    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED
    default_consequence: ClassVar[str] = "a training run goes on; its machine ends itself at its limit"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        consequence: str | None = None,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.consequence = consequence
        self.detail = detail
        if code is not None:
            self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """What a run has ended with, as the registry keeps it.

    Attributes:
        code, message, hint, consequence, detail: as of the error that a command shows for it.
        cause: the job's own code of what it told last.
        exit: exit code of a run that never trained.
    """

    code: str = "unexpected"
    message: str = "it failed"
    hint: str | None = None
    consequence: str | None = None
    detail: str | None = None
    cause: str | None = None
    exit: ExitCode | None = None

    @classmethod
    def of(cls, error: CloudtrainError) -> RunError:
        """A run that `error` has ended before it trained."""
        return cls(code=error.code, message=error.message, hint=error.hint, exit=error.exit_code)

    def shown(self, kept: str) -> CloudtrainError:
        """The error that a command shows for it; `kept`: what it means for money and data, where that is not said."""
        consequence = self.consequence or kept
        return CloudtrainError(
            self.message, code=self.code, hint=self.hint, detail=self.detail, consequence=consequence
        )


class UsageError(CloudtrainError):
    """The command, a setting or a folder is not usable as given; nothing was started."""

    code = "usage"
    exit_code = ExitCode.USAGE
    default_consequence = "nothing was started"


class UnknownRun(UsageError):
    """No run has this name."""

    code = "unknown_run"
    default_consequence = "nothing was changed"


class ConfirmationNeeded(UsageError):
    """A question must be asked and there is no terminal to ask it on."""

    code = "confirmation_needed"


class StoreDamaged(UsageError):
    """The run registry cannot be read or written."""

    code = "store_damaged"
    default_consequence = "no machine and no result is touched; machines still end themselves at their limits"


class SignInError(CloudtrainError):
    """Credentials are missing, expired or not allowed to do this."""

    code = "sign_in"
    exit_code = ExitCode.SIGN_IN
    default_consequence = "what is running goes on and ends itself at its limit"


class Refused(CloudtrainError):
    """The run was refused before anything was billed."""

    code = "refused"
    exit_code = ExitCode.REFUSED
    default_consequence = "nothing was created, nothing is billed"


class QuotaExceeded(Refused):
    """The account's vCPU quota does not allow the instance."""

    code = "quota"


class NoCapacity(Refused):
    """No zone had a free instance of any allowed type."""

    code = "no_capacity"


class ConnectionFailed(CloudtrainError):
    """A connection or transfer failed; the machine may still be running."""

    code = "connection"
    exit_code = ExitCode.CONNECTION
    default_consequence = "the run goes on, its log and results stay on the host; the machine ends itself at its limit"


# Code of a ConnectionFailed that no waiting mends: the machine has ended.
GONE = "instance_gone"
# The same, where AWS took a spot instance back.
RECLAIMED = "spot_reclaimed"


class HostKeyMismatch(ConnectionFailed):
    """The host presented another key than the pinned one. Never retried."""

    code = "host_key"
    default_consequence = "nothing was sent; what is running goes on and ends itself at its limit"


class ArtifactRefused(ConnectionFailed):
    """A file on the host is not what its manifest says, or not a plain file."""

    code = "artifact_refused"
    default_consequence = "it was not taken; the others are here, the host's copy is untouched"


class RunLost(CloudtrainError):
    """The run ended without an exit record: its supervisor was killed or the machine went down."""

    code = "run_lost"
    exit_code = ExitCode.CONNECTION
    default_consequence = "nothing is billed any more; what it had saved is in its folder here"


class LimitReached(CloudtrainError):
    """The run was ended by its time or cost limit, or by a spot reclaim."""

    code = "limit_reached"
    exit_code = ExitCode.LIMIT
    default_consequence = "nothing is billed any more; what it had saved is in its folder here"


class Busy(CloudtrainError):
    """Another command is acting on this run."""

    code = "busy"
    exit_code = ExitCode.STILL_RUNNING
    default_consequence = "that command goes on; this one changed nothing"


class Interrupted(CloudtrainError):
    """Ctrl-C where there is nothing to ask about, or the process was asked to end."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED
