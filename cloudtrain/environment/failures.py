"""What uv says when it fails, as errors with codes. Its words are shown, and only sorted here."""

from __future__ import annotations

import re

from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.text import screen_safe

_MOST_WORDS = 1500
# Code -> what uv or a package's build says then; the first that is found counts.
_SAID = (
    ("disk_full", r"[Nn]o space left on device|Disk quota exceeded|os error (?:28|122|112)\b"),
    ("hash_differs", r"Hash mismatch"),
    ("no_compiler", r"No such file or directory: '[^']*(?:cc|\+\+|clang|nvcc|cmake|ninja|cargo)'|"
                    r"command '[^']*(?:cc|\+\+|clang)' failed: No such file|CUDA_HOME|Python\.h: No such file|"
                    r"Microsoft Visual C\+\+|can't find Rust compiler|No CMAKE_\w+_COMPILER could be found"),
    ("no_wheel", r"doesn't have a source distribution or wheel|has no usable wheels|no wheels with a matching|"
                 r"has no wheels|Wheels are required for"),
    ("index_unreachable", r"Failed to fetch|error sending request|Request failed after|Could not connect|"
                          r"dns error|operation timed out|Git operation failed|HTTP status (?:client|server) error"),
    ("no_python", r"No interpreter found|No download found|incompatible with the `pylock|not compatible with"),
)  # fmt: skip


_OTHERWISE = 'or name the packages in requirements.txt; or env = "host" below [job] takes what is there'
# Code of an environment that could not be made -> what has happened, and what to do.
_NOT_BUILT = (
    ("disk_full", "the disk of the machine is full", "free space there, or a larger --volume-size"),
    (
        "hash_differs",
        "a package is not the file that was resolved: its sha256 differs",
        "run the same command again; if it stays so, the index or something on the way changes files",
    ),
    (
        "no_compiler",
        "a package comes as source alone, and the machine lacks what compiles it",
        "a version of it that has a wheel, or install the compiler there",
    ),
    (
        "no_wheel",
        "a package has no wheel for the machine's Python and system",
        "another version of it, or another Python (.python-version, --python)",
    ),
    (
        "index_unreachable",
        "the machine cannot reach the package index",
        'UV_DEFAULT_INDEX in its login\'s environment names another; env = "host" below [job] takes what is there',
    ),
    ("no_docker", "the machine has no docker that answers", f"install or start it there; {_OTHERWISE}"),
    (
        "docker_denied",
        "this login may not use the machine's docker",
        f"there: sudo usermod -aG docker USER, and log in again; {_OTHERWISE}",
    ),
    (
        "image_not_built",
        "docker could not build the image",
        "correct the Dockerfile; docker build here says the same",
    ),
    (
        "image_not_pulled",
        "docker could not pull the image",
        "check its name; of a private one the machine needs a login: docker login",
    ),
    (
        "no_python",
        "the machine has no Python of the version that is asked for, and could not fetch one",
        "--python PATH names one; .python-version and requires-python say which is asked for",
    ),
)


def kind(said: str) -> str | None:
    """The code of what uv has said; None: of none of the known kinds."""
    return next((code for code, words in _SAID if re.search(words, said)), None)


def needs_builds(error: UsageError) -> bool:
    """Whether it is a refusal of `unresolved` that comes of packages which are there as source alone."""
    return error.code == "no_wheel" and "from source is disabled" in (error.detail or "")


def unresolved(source: str, said: str) -> UsageError:
    """The packages of `source` cannot be resolved, before anything is launched."""
    words, code = _words(said), kind(said)
    if code == "index_unreachable":
        return UsageError(
            f"what {source} asks for cannot be looked up: the package index does not answer",
            hint='see the words below; UV_DEFAULT_INDEX names another index; env = "host" below [job] needs none',
            detail=words,
            code="index_unreachable",
        )
    if code == "no_wheel":
        return UsageError(
            f"{source} asks for a package that has no wheel for the machine's Python",
            hint="another version of it, or another Python (.python-version)",
            detail=words,
            code="no_wheel",
        )
    return UsageError(
        f"{source} asks for packages that cannot be had, or not together",
        hint=f"change {source}; uv pip compile here says the same",
        detail=words,
        code="requirements",
    )


def not_built(said: str, told: str | None = None) -> ConnectionFailed:
    """The environment could not be made on the machine; `told`: the code that our own program there gives."""
    words, consequence, code = _words(said), "nothing has trained", kind(said)
    if code != "disk_full" and told in {row[0] for row in _NOT_BUILT}:
        code = told
    for ours, message, hint in _NOT_BUILT:
        if code == ours:
            return ConnectionFailed(message, hint=hint, consequence=consequence, detail=words or None, code=ours)
    return ConnectionFailed(
        "the packages could not be installed on the machine",
        hint="see the words below",
        consequence=consequence,
        detail=words or None,
        code="environment",
    )


def _words(said: str) -> str:
    """The end of what uv has said, as it may be shown."""
    lines = [screen_safe(line.rstrip()) for line in said.strip().splitlines() if line.strip()]
    return "\n".join(lines)[-_MOST_WORDS:]
