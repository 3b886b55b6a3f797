"""What goes wrong between here and the host: connection, trust, transfer, the program there."""

from __future__ import annotations

from cloudtrain.error_codes.entry import group

_GOES_ON = "the run goes on, its log and results stay on the host; the machine ends itself at its limit"
_NOT_SENT = "nothing was sent"
_NOT_STARTED = "training has not started"
_BACK = "cloudtrain logs goes on where it stopped"

GROUP = group(
    "The host: connection, trust, transfer",
    "The machine may still be running: then the error says what it costs and when it ends itself. The training is "
    "detached from the connection, and the log goes on from the byte that is here.",
    ("connection", (6,), "the connection broke, or a transfer failed", _GOES_ON, _BACK),
    ("unreachable", (6,), "nothing answers at the address", _GOES_ON, f"check network and firewall, then: {_BACK}"),
    ("unknown_host", (6,), "no machine is known by this name", _NOT_SENT, "check the address"),
    ("no_banner", (6,), "something answers, but it is no SSH server", _NOT_SENT, "check address and port"),
    (
        "handshake",
        (6,),
        "the SSH handshake did not succeed",
        _NOT_SENT,
        f"{_BACK}; the host may offer no method that this computer has",
    ),
    (
        "host_key",
        (6,),
        "the host shows another key than the pinned one: another machine answers, or its key was replaced",
        f"{_NOT_SENT}; what runs goes on and ends itself at its limit",
        "do not connect; if the machine is not yours any more: cloudtrain stop",
    ),
    (
        "auth_refused",
        (6,),
        "the host does not accept the key for this user",
        _NOT_SENT,
        "check the user name and --identity",
    ),
    (
        "exec_refused",
        (6,),
        "the host does not let this user run programs",
        _NOT_STARTED,
        "a user with a shell on the host",
    ),
    ("silent", (6,), "nothing has come from the host for too long", _GOES_ON, _BACK),
    ("stalled", (6,), "a transfer has stopped moving", _GOES_ON, _BACK),
    ("protocol", (6,), "the host sent something else than what was asked for", _GOES_ON, _BACK),
    ("no_answer", (6,), "the program on the host ended without its answer", _GOES_ON, "run the same command again"),
    ("no_python", (6,), "the host has no Python that can be used", _NOT_STARTED, "install Python 3.8 or newer there"),
    (
        "environment",
        (6,),
        "what the training needs could not be installed on the instance",
        _NOT_STARTED,
        "see the end of the message; --ami with PyTorch needs no installation",
    ),
    (
        "push_failed",
        (6,),
        "the host did not take the files, or not as they are here",
        _NOT_STARTED,
        "run the same command again: the files are sent anew",
    ),
    (
        "tree_changed",
        (6,),
        "the files on the host are not those that were sent",
        _NOT_STARTED,
        "run the same command again: the files are sent anew",
    ),
    (
        "not_writable",
        (6,),
        "the host does not let this user write there",
        _NOT_STARTED,
        "make the folder on the host writable",
    ),
    (
        "bad_spec",
        (6,),
        "the supervisor on the host cannot use what it was told to run",
        _NOT_STARTED,
        "run the same command again with this version of cloudtrain",
    ),
    (
        "start_failed",
        (6,),
        "the training program could not be started",
        _NOT_STARTED,
        "the end of supervisor.log in the run's folder on the host says more",
    ),
    (
        "host_error",
        (6,),
        "the host's own system failed",
        _GOES_ON,
        "the message names what failed there; then run the same command again",
    ),
    (
        "host_refused",
        (6,),
        "the supervisor on the host refused for another reason",
        _GOES_ON,
        "the end of supervisor.log in the run's folder on the host says more",
    ),
    (
        "artifact_refused",
        (6,),
        "a result is not what the host's own list of files says, or cannot be put here",
        "it was not taken; the others are here, the host's copy is untouched",
        "cloudtrain pull tries again; cloudtrain stop ends the run without that file",
    ),
)
