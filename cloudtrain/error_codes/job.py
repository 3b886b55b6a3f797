"""What the shipped training package calls its own failures (`error` events; `cause` of a `training_failed`)."""

from __future__ import annotations

from cloudtrain.error_codes.entry import group

_SAVED = "the checkpoint of the last whole epoch is kept and pulled"
_BEFORE = "nothing has trained; the machine is given back"

GROUP = group(
    "The training itself",
    "The command's error is `training_failed` with exit code 3; the code below stands in its `cause` and in the "
    "`error` event of `events.jsonl`. A job of your own may have others.",
    (
        "bad_arguments",
        (3,),
        "the training program does not know the arguments",
        _BEFORE,
        "python -m job.train --help lists what there is",
    ),
    ("no_cuda", (3,), "CUDA was asked for, and torch sees no CUDA device", _BEFORE, "--device auto"),
    (
        "driver_too_old",
        (3,),
        "the NVIDIA driver is too old for the CUDA that torch was built for",
        _BEFORE,
        "update the driver, or --device cpu",
    ),
    (
        "gpu_unsupported",
        (3,),
        "this torch has no code for this GPU: it is too old, or too new",
        _BEFORE,
        "another --instance, or --device cpu",
    ),
    (
        "cuda_failed",
        (3,),
        "the GPU failed while it computed",
        _SAVED,
        "cloudtrain run --resume RUN, on another machine",
    ),
    ("no_mps", (3,), "an Apple GPU was asked for, and torch sees none", _BEFORE, "--device cpu"),
    (
        "data_unavailable",
        (3,),
        "MNIST could not be fetched from any source",
        _BEFORE,
        "connect to the internet, or put the files into the data folder",
    ),
    ("data_unreadable", (3,), "the data folder cannot be read", _BEFORE, "name one that can be read"),
    (
        "data_unwritable",
        (3,),
        "the data folder cannot be written",
        _BEFORE,
        "name one that can be written, or free 60 MB",
    ),
    (
        "checkpoint_unreadable",
        (3,),
        "the checkpoint to go on from cannot be read",
        _BEFORE,
        "start without it: cloudtrain rerun",
    ),
    (
        "checkpoint_mismatch",
        (3,),
        "the checkpoint is of another run: model or settings differ",
        _BEFORE,
        "the settings that it was made with",
    ),
    (
        "out_of_memory",
        (3,),
        "the GPU, or the host, has no memory left for the batch size",
        _SAVED,
        "a smaller --batch-size, or a GPU with more memory",
    ),
    ("non_finite_loss", (3,), "the loss became infinite or not a number", _SAVED, "a lower --lr, or another --seed"),
    ("disk_full", (3,), "the disk of the host is full", _SAVED, "--volume-size, or free space on the host"),
    ("cannot_write", (3,), "the results folder on the host cannot be written", _SAVED, "make it writable"),
    (
        "unexpected",
        (3,),
        "something that nobody foresaw in the training program",
        _SAVED,
        "cloudtrain logs shows the traceback",
    ),
)
