"""What is taken out of a text that may be published."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core.notes import RunNotes
from cloudtrain.core.spec import JobSpec, TrainSpec
from cloudtrain.run_folder import receipt, settings_file
from cloudtrain.run_folder.redact import _PATTERNS, Redaction
from cloudtrain.store import Store
from tests import plans

SECRET = "Zq7hunter2"  # of no shape that gives it away
SHAPES = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2_" * 9,
    "hf_" + "a1B2" * 8,
    "sk-" + "a1B2" * 8,
    "sk-proj-" + "a1B2-" * 8,
    "glpat-" + "a1B2" * 5,
    "xoxb-12345678901-" + "a1B2" * 5,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
]


@pytest.fixture
def public(tmp_path: Path) -> Redaction:
    return Redaction(Store(tmp_path / "registry.sqlite").add(plans.plan(tmp_path)), RunNotes())


@pytest.mark.parametrize(
    "option", ["--token", "--hf-token", "--hf_token", "-token", "--password", "--wandb-api-key", "--API_KEY"]
)
def test_the_word_behind_an_option_that_takes_a_secret(option: str, public: Redaction) -> None:
    assert public(["--lr", "0.1", option, SECRET, "last"]) == ["--lr", "0.1", option, "<secret>", "last"]
    assert public((option, SECRET)) == [option, "<secret>"]
    assert public(f"train.py {option} {SECRET} --lr 0.1") == f"train.py {option} <secret> --lr 0.1"
    assert public([option, "--lr", "0.1"]) == [option, "--lr", "0.1"] and public([option]) == [option]
    assert SECRET not in public([f"{option}={SECRET}"])[0]
    assert public({"argv": [{"more": [option, SECRET]}]}) == {"argv": [{"more": [option, "<secret>"]}]}


@pytest.mark.parametrize(
    "args", [["--tokenizer", "bert-base"], ["--max-tokens", "512"], ["--token-dropout", "0.1"], ["--secretary", "x"]]
)
def test_other_options_keep_their_values(args: list[str], public: Redaction) -> None:
    assert public(args) == args and public(" ".join(args)) == " ".join(args)


@pytest.mark.parametrize("token", SHAPES)
@pytest.mark.parametrize("text", ["{}", "key {} here", "--key={}", "'{}'", "https://x:{}@example.org/r.git", "[{}]"])
def test_a_token_is_known_by_its_shape(token: str, text: str, public: Redaction) -> None:
    assert token[8:] not in public(text.format(token))


@pytest.mark.parametrize("words", [["--wandb", "{}"], ["--wandb-key", "{}"], ["WANDB_RUN={}"], ["--wandb={}"]])
def test_a_key_of_weights_and_biases_is_known_by_what_stands_before_it(words: list[str], public: Redaction) -> None:
    key = "0123456789" * 4
    assert key in str(public(["--revision", key])), "any hash looks the same"
    given = [word.format(key) for word in words]
    assert key not in str(public(given)) and key not in str(public(" ".join(given)))


@pytest.mark.parametrize("text", ["TOKENIZERS_PARALLELISM=false", "max_tokens=512", "tokens: 491,520"])
def test_tokenizers_and_numbers_of_tokens_are_no_secrets(text: str, public: Redaction) -> None:
    name, _, value = text.partition("=")
    assert public(text) == text and public({name: value}) == {name: value}


@pytest.mark.parametrize("text", ["task-specific-learning-rate-decay", "risk-weighted", "disk-usage-of-all-folders"])
def test_words_are_no_tokens(text: str, public: Redaction) -> None:
    assert public(text) == text


def test_no_secret_stands_in_receipt_or_settings(tmp_path: Path) -> None:
    store = Store(tmp_path / "registry.sqlite")
    args = ("--token", SECRET, "--from", SHAPES[1], "--lr", "0.1")
    variables = {"MY_PASSWORD": SECRET, "COLOUR": SHAPES[2], "SIZE": "5"}
    job = JobSpec(source=str(tmp_path), vars=variables, secrets=("HF_TOKEN",), resume_args=("--key", SHAPES[3]))
    run = store.add(plans.plan(tmp_path, train=TrainSpec(args=args), job=job))
    settings = settings_file.toml(run, {})
    made = json.dumps(receipt.build(run, store)) + settings
    assert not any(secret in made for secret in (SECRET, *SHAPES)) and "0.1" in made
    assert '\nsecrets = ["HF_TOKEN"]\n' in settings and "\nvars" not in settings
    assert '# Without what is private in it: vars = { "MY_PASSWORD" = "<secret>", ' in settings
    assert store.get(run.name).plan.spec.train.args == args, "a rerun has them"


@given(st.recursive(st.text(max_size=8) | st.just("--token"), lambda inner: st.lists(inner, max_size=5), max_leaves=20))
def test_lists_keep_their_shape(value: Any) -> None:
    def shape(one: Any) -> Any:
        return [shape(inner) for inner in one] if isinstance(one, list) else ""

    made = Redaction.__new__(Redaction)
    made._paths, made._words = [], []
    assert shape(made(value)) == shape(value)


SLOW = ["a", "token", "token-", "--token ", "-a", "a-", "a.", "AKIA", "arn:aws", "/", "~a", ":", "1:", "sk-", "eyJa."]


@pytest.mark.parametrize("part", SLOW)
def test_the_time_grows_with_the_text_alone(part: str) -> None:
    for expression, instead in _PATTERNS:
        took = []
        for size in (20_000, 200_000):
            began = time.process_time()
            expression.sub(instead, part * (size // len(part)) + "!")
            took.append(time.process_time() - began)
        assert took[1] < 0.2 or took[1] < 40 * took[0], (expression.pattern, took)
