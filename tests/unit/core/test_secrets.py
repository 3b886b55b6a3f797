"""What hides the values of secrets, however a text comes; and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.config import env_file
from cloudtrain.console.lines import write_json
from cloudtrain.core import secrets
from cloudtrain.core.errors import RunError, UsageError
from cloudtrain.core.secrets import HiddenBytes, Place
from cloudtrain.core.terminal import MOST_LINE, LogText
from cloudtrain.core.text import screen_safe
from cloudtrain.store import Store
from tests import plans

VALUE = "ababac-Zq7"  # begins with what it could begin with again
STARS = "*" * len(VALUE)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process knows VALUE, and forgets it."""
    monkeypatch.setattr(secrets, "_given", {})
    monkeypatch.setattr(secrets, "_hidden", [])
    monkeypatch.setenv("HF_TOKEN", VALUE)
    assert secrets.missing(["HF_TOKEN"]) == []
    yield


# Texts of what it is made of, so that they hold it, and beginnings of it, often.
PARTS = st.lists(st.sampled_from([VALUE, "ab", "aba", "ababac-", "\n", "x", "\r", "é"]), max_size=12)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=8)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`data` in pieces of these sizes, again and again."""
    while data:
        for size in sizes:
            yield data[:size]
            data = data[size:]


@given(PARTS, CUTS)
def test_bytes_in_any_pieces_are_hidden_as_the_whole(parts: list[str], sizes: list[int]) -> None:
    text = "".join(parts)
    shown = HiddenBytes()
    pieces = [shown.feed(piece) for piece in cut(text.encode(), sizes)]
    assert b"".join([*pieces, shown.feed(b"", final=True)]) == text.replace(VALUE, STARS).encode()


@given(PARTS, CUTS)
def test_no_line_of_a_log_shows_it_nor_does_one_that_has_no_end_yet(parts: list[str], sizes: list[int]) -> None:
    log, lines = LogText(), list[str]()
    whole = "".join(parts).replace(VALUE, STARS).split("\n")
    for piece in cut("".join(parts).encode(), sizes):
        lines += log.feed(piece)
        if "\r" not in "".join(parts):
            (shown,) = log.open_rows() or [""]
            assert whole[len(lines)].startswith(shown), "of a value that is under way nothing is seen"
    lines += log.feed(b"", final=True)
    assert VALUE not in "\n".join(lines)
    if "\r" not in "".join(parts):
        assert lines == (whole if whole[-1] else whole[:-1])


def test_a_line_that_is_given_out_in_pieces_is_not_cut_in_a_value() -> None:
    log, before = LogText(), b"x" * (MOST_LINE - 3)
    assert log.feed(before + VALUE[:7].encode()) == []
    assert log.feed(VALUE[7:].encode() + b"\n") == [before.decode() + STARS[:3], STARS[3:]]


def test_escapes_in_it_do_not_help() -> None:
    assert screen_safe(f"token {VALUE[:4]}\x1b[0m{VALUE[4:]}!") == f"token {STARS}!"


def test_lines_of_a_key_are_hidden_one_by_one_and_what_is_short_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "-----BEGIN KEY-----\nMIIabcdef0123\n        \nxyz\n")
    monkeypatch.setenv("PIN", "12345")
    assert secrets.missing(["KEY", "PIN"]) == []
    assert secrets.hide("a MIIabcdef0123 b 12345         xyz") == "a ************* b 12345         xyz"


def test_json_is_hidden_whatever_its_shape() -> None:
    told = {"a": [VALUE, 1, None, {f"k{VALUE}": (f"x {VALUE}",)}]}
    assert secrets.hidden(told) == {"a": [STARS, 1, None, {f"k{STARS}": [f"x {STARS}"]}]}


def test_a_line_of_json_stays_one_where_a_number_has_the_digits_of_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIN", "100000")
    assert secrets.missing(["PIN"]) == []
    write_json({"step": 1000000, "told": "100000"})
    assert json.loads(capsys.readouterr().out) == {"step": 1000000, "told": "******"}


@given(
    st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 30)), max_size=5),
    st.integers(0, 40),
    st.binary(max_size=40),
)
def test_places_are_blanked_and_nothing_else(found: list[tuple[int, int]], offset: int, data: bytes) -> None:
    places = [Place(name="X", at=at, bytes=size) for at, size in found]
    made = secrets.blanked(data, offset, places)
    inside = {byte for at, size in found for byte in range(at, at + size)}
    assert made == bytes(ord("*") if offset + i in inside else data[i] for i in range(len(data)))


def test_this_shell_comes_before_the_file_and_an_empty_value_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    file = tmp_path / ".env"
    file.write_text("# of mine\nHF_TOKEN=other\nexport WANDB_API_KEY='a # b' # mine\nEMPTY=\nPLAIN = c#d  # why\n\n")
    env_file.give(file)
    names = ("HF_TOKEN", "WANDB_API_KEY", "PLAIN")
    found = secrets.values_of(names, consequence="nothing was started")
    assert found == {"HF_TOKEN": VALUE, "WANDB_API_KEY": "a # b", "PLAIN": "c#d"}
    assert secrets.missing(["EMPTY", "NOBODY", *names]) == ["EMPTY", "NOBODY"]
    with pytest.raises(UsageError, match="the secret EMPTY is not set") as caught:
        secrets.values_of(["HF_TOKEN", "EMPTY"], consequence="nothing was started")
    assert (caught.value.code, caught.value.consequence) == ("secret_missing", "nothing was started")
    assert caught.value.hint is not None and "export EMPTY=" in caught.value.hint and "--env-file" in caught.value.hint


@pytest.mark.parametrize(
    "text", [f"A=1\n{VALUE}\n", f"hf-token={VALUE}", f"A=\0{VALUE}", b"A=\xff", f"A='x'{VALUE}", f'A="a\\"{VALUE}"']
)
def test_a_file_that_is_none_is_refused_and_not_repeated(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        env_file.give(file)
    assert caught.value.code == "bad_setting" and VALUE not in str(caught.value) and str(file) in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        env_file.give(tmp_path / "none")


def test_who_reads_of_a_run_hides_its_secrets_and_keeps_them_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "registry.sqlite")
    spec = plans.spec(tmp_path)
    job = plans.JobSpec(source=str(tmp_path), secrets=("WANDB_API_KEY",))
    store.add(plans.plan(tmp_path, job=job))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    assert secrets.hide("0123456789") == "0123456789"
    run = store.get(spec.name)
    assert secrets.hide("0123456789") == "*" * 10
    store.note(run, error=RunError(message="401 for 0123456789", detail=f"key 0123456789, {VALUE}"))
    assert b"0123456789" not in (tmp_path / "registry.sqlite").read_bytes()
    assert store.get(run.name).error == RunError(message="401 for **********", detail=f"key **********, {STARS}")
