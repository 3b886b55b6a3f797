"""The layer table's values, and `env/`: every package that the run could import, the GPU without what names it."""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytest.importorskip("torch")

import torch

from job import models
from job.outputs import Outputs, public_gpu_report, requirements, summarise

# Field names and layout as the driver's tool prints them; the values are made up.
SMI_Q = """
==============NVSMI LOG==============

Timestamp                                 : Mon Nov 23 12:00:00 2026
Driver Version                            : 580.105
CUDA Version                              : 13.0

Attached GPUs                             : 1
GPU 00000000:00:1E.0
    Product Name                          : Tesla T4
    Serial Number                         : 1320000000001
    GPU UUID                              : GPU-01234567-89ab-cdef-0123-456789abcdef
    GPU PDI                               : 0x1234567890abcdef
    VBIOS Version                         : 90.04.96.00.02
    MIG Mode
        Current                           : N/A
    Platform Info
        Chassis Serial Number             : 987654
        Host ID                           : 12
        GPU Fabric GUID                   : 0xabcdef
        Some Later Name                   : 01234567-89AB-CDEF-0123-456789ABCDEF
    FB Memory Usage
        Total                             : 15360 MiB
    Accounting Mode                       : Disabled
    Processes
        GPU instance ID                   : N/A
        Process ID                        : 4242
            Type                          : C
            Name                          : /home/ann/secret project/train.py

            Used GPU Memory               : 913 MiB
    Capabilities
        EGM                               : disabled

GPU 00000000:00:1F.0
    Product Name                          : Tesla T4
    Processes                             : None
    Power Draw                            : 12.34 W
"""


def test_summary_leaves_the_model_as_it_was() -> None:
    net = models.build(3).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    stream = torch.get_rng_state()
    summarise(net)
    assert net.training
    assert torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_summary_as_json_holds_the_table() -> None:
    facts = json.loads(json.dumps(summarise(models.build(2)).as_json()))
    assert facts["parameters"] == facts["trainable_parameters"] == 5_048
    assert facts["layers"][0] == {"name": "Conv2d", "shape": [8, 26, 26], "parameters": 72, "trainable": True}
    assert len(facts["layers"]) == 24


def package(folder: Path, name: str, version: str, direct_url: str | None = None) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no\n")
    if direct_url is not None:
        (info / "direct_url.json").write_text(direct_url)


def test_packages_are_sorted_once_each_and_pip_can_read_them(tmp_path: Path) -> None:
    first, later = tmp_path / "first", tmp_path / "later"
    package(first, "Zope.Thing", "2.0")
    package(first, "torch", "2.13.0+cpu")
    package(later, "TORCH", "1.0")
    package(first, "mine", "0.1", '{"url": "file:///home/ann/mine", "dir_info": {"editable": true}}')
    package(first, "theirs", "0.2", '{"url": "https://ann:pass@git.example/x", "vcs_info": {"vcs": "git"}}')
    package(first, "wheel-file", "3.0", '{"url": "file:///home/ann/w.whl", "archive_info": {}}')
    package(first, "odd", "1 --index-url https://ann:pass@index.example")
    (first / "torn-1.0.dist-info").mkdir()
    text = requirements(metadata.distributions(path=[str(first), str(later)]))
    head, *lines = text.splitlines()
    assert head.startswith("# Python 3.")
    assert lines == [
        "# mine==0.1 (from a folder or a repository)",
        "# theirs==0.2 (from a folder or a repository)",
        "torch==2.13.0+cpu",
        "wheel-file==3.0",
        "Zope.Thing==2.0",
    ]
    assert "ann" not in text and "index" not in text


def test_the_packages_of_this_interpreter_are_those_that_it_imports() -> None:
    told = [Requirement(line) for line in requirements().splitlines() if not line.startswith("#")]
    assert f"=={metadata.version('torch')}" in [str(one.specifier) for one in told if one.name == "torch"]
    assert len(told) > 10 and all(one.url is None for one in told)


def test_nothing_of_one_machine_or_of_its_processes_is_kept_of_a_gpu() -> None:
    told = public_gpu_report(SMI_Q)
    for private in (
        "1320000000001",
        "GPU-0123",
        "0x1234",
        "987654",
        "Host ID",
        "0xabcdef",
        "89AB",
        "4242",
        "ann",
        "913",
    ):
        assert private not in told, private
    for kept in ("580.105", "Tesla T4", "90.04.96.00.02", "15360 MiB", "EGM", "Accounting Mode", "12.34 W", "1F.0"):
        assert kept in told, kept


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for the program")
def test_without_a_gpu_that_answers_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/bin")
    outputs, file = Outputs(tmp_path / "out"), tmp_path / "out" / "env" / "gpu.txt"
    told = tmp_path / "told"
    told.write_text(SMI_Q)
    for script in (None, "echo No devices were found", f"cat '{told}'; exit 9"):
        if script is not None:
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        outputs.environment(gpu=True)
        assert not file.exists(), script
    monkeypatch.setattr("job.outputs.SMI_LIMIT_S", 0.2)
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    outputs.environment(gpu=True)
    assert not file.exists()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/bin")
    program.write_text(f"#!/bin/sh\n[ \"$1\" = -q ] && cat '{told}'\n")
    outputs.environment(gpu=False)
    assert not file.exists()
    outputs.environment(gpu=True)
    assert file.read_text(encoding="utf-8") == public_gpu_report(SMI_Q)
    assert (file.parent / "requirements.txt").is_file()
