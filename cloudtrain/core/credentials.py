"""What looks like a secret: by its shape, by the name of the variable that has it, or by the word before it.

It is taken out of what may be published (`run_folder/redact.py`) and of command lines on a screen, and warned of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cloudtrain.core.secrets import NAME

Patterns = tuple[tuple[re.Pattern[str], str], ...]

# Tokenizers and numbers of tokens are none.
_SECRETS = "secret|password|passwd|passphrase|token(?!iz|s)|credential|api[_-]?key|access[_-]?key"
NAMES_ONE = re.compile(_SECRETS, re.IGNORECASE)
"""In the name of what holds one."""
# The option of a program that takes a secret as its next word; "--tokenizer" and "--max-tokens" take none.
_TAKES_SECRET = re.compile(rf"--?(?:[\w-]*[_-])?(?:{_SECRETS})", re.IGNORECASE)
# Keys of Weights & Biases have no shape of their own, but stand where they are named.
_OF_WANDB = re.compile(r"[0-9a-f]{40}")
# How the keys of GitHub, GitLab, Hugging Face, OpenAI and their like, Slack, Google, npm and PyPI begin; and a JWT.
_TOKENS = (
    r"(?:gh[opusr]_|github_pat_|glpat-|hf_|sk-|xox[abeoprs]-|AIza|npm_|pypi-)[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
)
# Each is done in a time that grows with the text alone: what a job tells may be long, and made to be slow.
# What is one wherever it stands.
_SHAPES: Patterns = (
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), "<key>"),
    (re.compile(rf"(?<![A-Za-z0-9_-])(?:{_TOKENS})"), "<secret>"),
)
PATTERNS: Patterns = (
    (re.compile(r"-----BEGIN.*?(?:-----END[^\n]*|\Z)", re.DOTALL), "<key>"),
    *_SHAPES,
    (re.compile(r"(?i)(wandb[\w-]{0,64}(?:\s*[=:]\s*|\s+))[0-9a-f]{40}\b"), r"\1<secret>"),
    (re.compile(rf"(?i)((?:{_SECRETS})[\w-]{{0,64}}\s*[=:]\s*)[^\s\"',;]+"), r"\1<secret>"),
    (re.compile(rf"(?i)(?<![\w-])(--?(?:[\w-]{{0,64}}[_-])?(?:{_SECRETS})\s+)[^-\s\"',;][^\s\"',;]*"), r"\1<secret>"),
)
"""The same, and what is one for the word before it."""


def typed(words: Iterable[str]) -> list[str]:
    """A command line as a screen may have it: without what looks like a secret."""
    return listed(list(words), lambda word: without(word, PATTERNS))


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """The same of variables: also those whose name says that they hold one."""
    return {name: "<secret>" if NAMES_ONE.search(name) else typed([value])[0] for name, value in given.items()}


def without_tokens(text: str) -> str:
    """`text` without what is a secret by its shape alone."""
    return without(text, _SHAPES)


def warnings(words: Sequence[str], given: Mapping[str, str]) -> tuple[str, ...]:
    """What to say of a command line and of variables, which are kept as they are, that look as if they held secrets."""
    found: dict[str, str] = {}
    for before, word, public in zip(["", *words], words, typed(words), strict=False):
        option = word.partition("=")[0] if word.startswith("-") and "=" in word else before
        if word != public:
            name = option.lstrip("-").upper().replace("-", "_")
            found[option if option.startswith("-") else "an argument"] = name if NAME.fullmatch(name) else "NAME"
    found |= {f"--env {name}": name for name, public in variables(given).items() if public != given[name]}
    return tuple(
        f"{where} looks like a secret: the list of runs keeps it, and so does the machine; --secret {name} hands over"
        " what this shell has under that name, and keeps it nowhere"
        for where, name in found.items()
    )


def listed(values: list[Any], each: Callable[[Any], Any]) -> list[Any]:
    """Each made public by `each`; the word behind an option that takes a secret is one."""
    public = []
    for before, value in zip([None, *values], values, strict=False):
        secret = isinstance(before, str) and isinstance(value, str) and _is_behind(before, value)
        public.append("<secret>" if secret else each(value))
    return public


def _is_behind(option: str, word: str) -> bool:
    if option.startswith("-") and "wandb" in option.lower() and _OF_WANDB.fullmatch(word):
        return True
    return _TAKES_SECRET.fullmatch(option) is not None and not word.startswith("--")


def without(text: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> str:
    """`text` with each pattern replaced, one after another."""
    for expression, instead in patterns:
        text = expression.sub(instead, text)
    return text
