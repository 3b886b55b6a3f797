"""Figures of a run's folder: whose word counts, how much is kept, and event files as they grow and as they are cut."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.figures import BOARD, DECLARED, EVENTS, LINES, Row
from cloudtrain.run_folder import event_files, figures
from cloudtrain.run_folder.event_files import EventFiles
from cloudtrain.run_folder.figures import read

pytest.importorskip("tensorboard")


def written(folder: Path, *summaries: tuple[int, list[Any]]) -> Path:
    """An event file as TensorBoard's own writer makes it, with a summary a record."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.1.host"
    with path.open("ab") as file:
        writer = RecordWriter(file)
        for step, values in summaries:
            event = Event(wall_time=1.8e9, step=step, summary=Summary(value=values))
            writer.write(event.SerializeToString())
    return path


def board(folder: Path, scalars: list[tuple[int, str, float]]) -> Path:
    """One of scalars: step, tag, value."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return written(folder, *((at, [Summary.Value(tag=tag, simple_value=value)]) for at, tag, value in scalars))


def told(folder: Path, *events: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def test_of_a_name_the_most_trusted_origin_counts(tmp_path: Path) -> None:
    told(tmp_path, {"kind": "x", "step": 1, "loss": 4.0}, {"kind": "x", "step": 2, "loss": 3.0})
    board(tmp_path / "runs" / "a", [(1, "loss", 9.0), (1, "val/loss", 5.0), (2, "val/loss", 4.5)])
    (tmp_path / "console.log").write_text("{'loss': 8.0, 'lr': 0.1, 'epoch': 0.5}\nppl 7.5 lr 6\nppl 7.25\n")
    found = read(tmp_path, {"ppl": r"ppl ([\d.]+)", "lr": r"lr ([\d.]+)"})
    assert found.origins == {"loss": EVENTS, "val/loss": BOARD, "lr": LINES, "ppl": DECLARED} and not found.notes
    assert dict(found.rows[0].values) == {"loss": 4.0, "val/loss": 5.0}, "told at one place"
    curves = {one.name: (one.axis, one.points, one.last, one.low, one.high, one.where) for one in found.curves()}
    assert curves == {
        "loss": ("step", ((1.0, 4.0), (2.0, 3.0)), 3.0, 3.0, 4.0, "step 2"),
        "val/loss": ("step", ((1.0, 5.0), (2.0, 4.5)), 4.5, 4.5, 5.0, "step 2"),
        "lr": ("epoch", ((0.5, 0.1),), 0.1, 0.1, 0.1, "epoch 0.5"),
        "ppl": ("row", ((1.0, 7.5), (2.0, 7.25)), 7.25, 7.25, 7.5, "row 2"),
    }


def test_what_is_told_at_one_place_is_one_row_and_what_is_told_again_is_the_later(tmp_path: Path) -> None:
    (tmp_path / "events.1.jsonl").parent.mkdir(exist_ok=True)
    (tmp_path / "events.1.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "loss": 8.0}\n')
    told(tmp_path, {"step": 2, "loss": 2.0}, {"step": 2, "val_loss": 2.5}, {"step": 3, "loss": 1.0})
    assert [(row.step, dict(row.values)) for row in read(tmp_path, {}).rows] == [
        (1, {"loss": 9.0}),
        (2, {"loss": 2.0, "val_loss": 2.5}),
        (3, {"loss": 1.0}),
    ]


def test_figures_are_bounded_and_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_VALUES", 100)
    told(tmp_path, *({"step": at, "loss": at, f"n{at}": 1} for at in range(500)))
    found = read(tmp_path, {})
    assert len(found.names) == figures.MOST_NAMES and sum(len(row.values) for row in found.rows) <= 100
    assert found.rows[-1].step == 499 and found.notes == ("so many values that some rows are left out here",)
    assert all(one.points for one in found.curves())
    (tmp_path / "console.log").write_text("ppl 9.5\n")
    assert "ppl" in read(tmp_path, {"ppl": r"ppl ([\d.]+)"}).names, "what the user has declared is always there"


def test_of_a_log_the_end_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_LOG", 30)
    (tmp_path / "console.log").write_bytes(b"{'old': 1.0, 'epoch': 1}\n{'loss': 1.0, 'epoch': 2}\n")
    found = read(tmp_path, {})
    assert found.names == ("loss",) and found.notes == ("of the log only the last 30 B were looked through",)


def test_a_log_of_many_lines_is_read_quickly(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"{'loss': 1.0, 'epoch': 0.5}\nstep 250: val loss 2.0646\n" * 5_000)
    began = time.process_time()
    assert set(read(tmp_path, {"val": r"val loss ([\d.]+)"}).names) == {"loss", "val"}
    assert time.process_time() - began < 2.0


def test_event_files_are_followed_as_they_grow(tmp_path: Path) -> None:
    files, names = EventFiles(tmp_path), ["tb/events.out.tfevents.1.host", "weights.pt", "gone/x.tfevents"]
    assert files.news(names) == []
    path = board(tmp_path / "tb", [(1, "loss", 0.5)])
    whole = path.read_bytes()
    assert files.news(names) == [Row(origin=BOARD, values={"loss": 0.5}, step=1, at=1.8e9)] and files.news(names) == []
    board(tmp_path / "tb", [(2, "loss", 0.25)])
    grown = path.read_bytes()
    for cut in range(len(whole), len(grown)):
        path.write_bytes(grown[:cut])
        assert files.news(names) == [], "a record that is not whole waits"
    path.write_bytes(grown)
    assert [row.step for row in files.news(names)] == [2]
    path.unlink()
    board(tmp_path / "tb", [(7, "loss", 1.0)])
    assert [row.step for row in files.news(names)] == [7], "another file by that name"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pieces_of_an_event_file_tell_what_the_whole_does(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = board(tmp_path_factory.mktemp("pieces"), [(at, "loss", at) for at in range(6)])
    whole, files, steps, at = path.read_bytes(), EventFiles(path.parent), list[int | None](), 0
    path.unlink()
    while at < len(whole):
        more = data.draw(st.integers(1, len(whole) - at))
        again = data.draw(st.integers(0, at))  # bytes that have come already
        steps += [row.step for row in files.fed(path.name, again, whole[again : at + more])]
        at += more
    assert steps == list(range(6)) and files.fed(path.name, len(whole) + 1, b"x") == [], "there is a gap"
    path.write_bytes(whole)
    board(path.parent, [(7, "loss", 7)])
    assert [row.step for row in files.news([path.name])] == [7], "once it is here it goes on where that was"


def test_pieces_that_never_make_a_record_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "MOST_BYTES", 1000)
    files, head = EventFiles(tmp_path), struct.pack("<Q", 2**40)
    assert files.fed("x.tfevents", 0, head + struct.pack("<I", event_files._masked_crc(head)) + b"x" * 1500) == []
    assert files.fed("x.tfevents", 1512, b"x" * 1500) == [] and len(files._files["x.tfevents"]._rest) < 2000
    assert files.fed("y.tfevents", 0, b"damaged" * 9) == [] and not files._files["y.tfevents"]._rest


def test_only_numbers_of_their_own_count(tmp_path: Path) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    scalars = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    text = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    packed = TensorProto(dtype=2, tensor_content=struct.pack("<d", 0.125))
    value = Summary.Value
    written(
        tmp_path,
        (1, [value(tag="new", tensor=TensorProto(dtype=1, float_val=[0.25]), metadata=scalars)]),
        (2, [value(tag="new", tensor=packed), value(tag="many", tensor=TensorProto(dtype=1, float_val=[1, 2]))]),
        (2, [value(tag="words", tensor=TensorProto(dtype=1, float_val=[1.5]), metadata=text)]),
        (2, [value(tag="picture", image=Summary.Image(encoded_image_string=b"x" * 100_000))]),
        (3, [value(tag="nan", simple_value=float("nan")), value(tag="last", simple_value=1.0)]),
    )
    assert [(row.step, dict(row.values)) for row in read(tmp_path, {}).rows] == [
        (1, {"new": 0.25}),
        (2, {"new": 0.125}),
        (3, {"last": 1.0}),
    ]


def test_very_many_scalars_are_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = board(tmp_path, [(at, "loss", at) for at in range(100)])
    monkeypatch.setattr(event_files, "MOST_BYTES", path.stat().st_size // 2)
    found = read(tmp_path, {})
    assert 40 < len(found.rows) < 60 and found.notes == (
        "TensorBoard files: so much that only the first of it was read",
    )
    files = EventFiles(tmp_path)
    assert sum(len(files.news([path.name])) for _ in range(3)) == 100 and not files.cut


def test_a_tag_of_several_folders_bears_the_folders_name(tmp_path: Path) -> None:
    board(tmp_path / "version_0", [(1, "loss", 0.5)])
    board(tmp_path / "version_1", [(1, "loss", 0.25)])
    assert read(tmp_path, {}).names == ("loss", "version_1/loss")


def test_event_files_without_their_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board(tmp_path, [(1, "loss", 0.5)])
    for module in (figures, event_files):
        monkeypatch.setattr(module, "readable", lambda: False)
    found = read(tmp_path, {})
    assert not found.names and found.notes == ("1 TensorBoard file not read: python -m pip install tensorboard",)


def test_no_file_outside_the_folder_is_read(tmp_path: Path) -> None:
    outside = board(tmp_path / "else", [(1, "theirs", 0.5)])
    run = tmp_path / "run"
    run.mkdir()
    (run / "events.out.tfevents.link").symlink_to(outside)
    (run / "folder").symlink_to(outside.parent, target_is_directory=True)
    assert read(run, {}).names == ()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_event_files_stop_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = board(folder, [(at, "loss", 1.0 / (at + 1)) for at in range(5)])
    whole = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[at] ^= data.draw(st.integers(1, 255))
    more = data.draw(st.binary(max_size=40) | st.just(struct.pack("<QI", 2**63, 0)))
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]) + more)
    for row in EventFiles(folder).news([path.name]):
        assert row.origin == BOARD and len(row.values) == 1


def test_a_record_that_says_it_is_endless_takes_no_memory(tmp_path: Path) -> None:
    path = board(tmp_path, [(1, "loss", 0.5)])
    head = struct.pack("<Q", 2**60)
    with path.open("ab") as file:
        file.write(head + struct.pack("<I", event_files._masked_crc(head)) + b"x" * 100)
    files = EventFiles(tmp_path)
    assert [row.step for row in files.news([path.name])] == [1] and files.news([path.name]) == []
