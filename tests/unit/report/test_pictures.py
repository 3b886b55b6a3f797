"""Pictures of the test set: the very ones, dark on light, and only from a file whose sha256 is the run's."""

from __future__ import annotations

import copy
import hashlib
import io
import struct
from pathlib import Path

import pytest

from cloudtrain.report import page, pictures
from tests.made import IMAGES_SHA256, RECEIPT, MadeRun


def receipt(sha256: str) -> dict[str, object]:
    told = copy.deepcopy(RECEIPT)
    told["data"]["sha256"][pictures.FILE] = sha256
    return told


@pytest.mark.mnist
def test_a_picture_is_that_of_the_data_set(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("CLOUDTRAIN_DATA", str(mnist))
    found = pictures.of(receipt(IMAGES_SHA256))
    assert found is not None and (found.count, found.height, found.width) == (10_000, 28, 28)
    raw = (mnist / pictures.FILE).read_bytes()
    for index in (0, 4242, 9999):
        png = found.png(index)
        assert png is not None
        shown = image.open(io.BytesIO(png))
        assert (shown.mode, shown.size) == ("L", (28, 28))
        assert bytes(255 - value for value in shown.tobytes()) == raw[16 + index * 784 : 16 + (index + 1) * 784]
    assert found.png(10_000) is None and found.png(-1) is None
    assert (found.data_url(0) or "").startswith("data:image/png;base64,")


def test_other_data_gives_no_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUDTRAIN_DATA", str(tmp_path))
    assert pictures.of(receipt(IMAGES_SHA256)) is None
    data = struct.pack(">IIII", 2051, 1, 28, 28) + bytes(784)
    (tmp_path / pictures.FILE).write_bytes(data)
    assert pictures.of(receipt(IMAGES_SHA256)) is None
    assert pictures.of(receipt(hashlib.sha256(data).hexdigest())) is not None
    assert pictures.of({"data": {"source": "x"}}) is None
    odd = struct.pack(">IIII", 2051, 10**6, 28, 28)
    (tmp_path / pictures.FILE).write_bytes(odd)
    assert pictures.of(receipt(hashlib.sha256(odd).hexdigest())) is None


def test_the_cache_is_looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path))
    data = struct.pack(">IIII", 2051, 1, 28, 28) + bytes(784)
    folder = tmp_path / "cache" / "data" / "mnist"
    folder.mkdir(parents=True)
    (folder / pictures.FILE).write_bytes(data)
    assert pictures.of(receipt(hashlib.sha256(data).hexdigest())) is not None


def test_a_report_without_the_data_says_so(made: MadeRun) -> None:
    text = page.report(made.facts())
    assert "the test images of this run are not on this computer" in text and "<img" not in text
    assert "99.9%" in text and "no. 5" in text
