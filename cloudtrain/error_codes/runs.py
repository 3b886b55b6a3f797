"""How runs end badly, and what cannot be done with a run's record."""

from __future__ import annotations

from cloudtrain.error_codes.entry import group

_HERE = "nothing is billed any more; what it had saved is in its folder here"
_KEPT = "nothing was changed"

GROUP = group(
    "Runs and their records",
    "`error` of a run that has ended badly, also in `ls`, `show` and its receipt; and what a record is not good for.",
    (
        "training_failed",
        (3,),
        "the training program ended with another exit code than 0",
        _HERE,
        "cloudtrain logs; then correct it and run again",
    ),
    (
        "limit_reached",
        (7,),
        "the time or cost limit ended the run",
        _HERE,
        "cloudtrain run --resume RUN goes on from its checkpoint",
    ),
    (
        "machine_ended",
        (7,),
        "the run was ended because its machine was shut down",
        _HERE,
        "cloudtrain run --resume RUN goes on from its checkpoint",
    ),
    (
        "run_lost",
        (6,),
        "the run ended without a record: its supervisor was killed, or its machine went down",
        _HERE,
        "cloudtrain rerun; cloudtrain run --resume RUN where a checkpoint is here",
    ),
    ("stopped", (130,), "you stopped the run", _HERE, "cloudtrain run --resume RUN goes on from its checkpoint"),
    (
        "not_pulled",
        (130,),
        "you stopped the run without pulling its results (stop --no-pull)",
        "nothing is billed any more; what had come down before is here, the rest went with the machine",
        "cloudtrain rerun; cloudtrain run --resume RUN where a checkpoint is here",
    ),
    (
        "abandoned",
        (130,),
        "you ended the run before it trained",
        "nothing is billed any more; nothing was lost",
        "cloudtrain rerun",
    ),
    (
        "cleaned",
        (130,),
        "cloudtrain clean ended the run's machine",
        "nothing is billed any more; what had been pulled is here",
        "cloudtrain show",
    ),
    (
        "still_running",
        (2, 8),
        "the run has not ended yet",
        "it goes on, and ends itself at its limit",
        "cloudtrain logs, or cloudtrain wait",
    ),
    (
        "finished",
        (2,),
        "the run has finished: there is nothing to go on with",
        "nothing was started",
        "cloudtrain rerun",
    ),
    ("nothing_yet", (2,), "the run has not begun to train", _KEPT, "cloudtrain logs"),
    (
        "no_checkpoint",
        (2,),
        "no checkpoint of the run is here, or it is not what its host had",
        "nothing was started",
        "cloudtrain rerun begins anew",
    ),
    (
        "no_code",
        (2,),
        "the code that the run ran is not to be had any more",
        "nothing was started",
        "git checkout of the commit that the message names",
    ),
    ("no_receipt", (2,), "there is no run.json to check", "nothing was checked", "cloudtrain ls"),
    ("bad_receipt", (2,), "run.json cannot be understood", "nothing was checked", "cloudtrain pull writes it anew"),
    (
        "verify_failed",
        (2, 6),
        "files are not what the run's receipt says",
        _KEPT,
        "cloudtrain pull fetches the results again where the machine is still there",
    ),
    ("no_figures", (2,), "the run has no finished epoch", "nothing was written", "cloudtrain logs"),
    ("no_weights", (2,), "the run's weights are not here", "nothing was written", "cloudtrain pull"),
    (
        "no_network",
        (2,),
        "the run's code does not say how its network is built",
        "nothing was written",
        "--to csv and --to tensorboard need no network",
    ),
    (
        "export_failed",
        (1,),
        "the network could not be exported, or differs from the original after it",
        "nothing was written; the results are untouched",
        "another --to",
    ),
)
