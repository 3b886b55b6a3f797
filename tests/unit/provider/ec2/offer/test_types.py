"""Facts of instance types, and each refusal with what to use instead."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtrain.core.errors import ExitCode, Refused, UsageError
from cloudtrain.provider.ec2.offer import prices, types
from cloudtrain.provider.ec2.offer.types import InstanceType

KNOWN = prices.load().names


def info(name: str, gpus: list[dict[str, Any]] | None, arch: str = "x86_64", **more: Any) -> dict[str, Any]:
    """An entry of DescribeInstanceTypes."""
    entry: dict[str, Any] = {
        "InstanceType": name,
        "ProcessorInfo": {"SupportedArchitectures": [arch]},
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
        "SupportedUsageClasses": ["on-demand", "spot"],
        **more,
    }
    if gpus is not None:
        entry["GpuInfo"] = {"Gpus": gpus}
    return entry


def gpu(name: str, maker: str = "NVIDIA", count: int = 1, mib: int = 16384) -> dict[str, Any]:
    return {"Name": name, "Manufacturer": maker, "Count": count, "MemoryInfo": {"SizeInMiB": mib}}


def check(name: str, *entries: dict[str, Any], **more: Any) -> InstanceType:
    found = {entry["InstanceType"]: types.read(entry) for entry in entries}  # type: ignore[arg-type]
    return types.check_usable(name, found, known=KNOWN, region="us-east-1", **more)


def test_a_usable_type_is_read_as_ec2_describes_it() -> None:
    one = check("g4dn.xlarge", info("g4dn.xlarge", [gpu("T4")]))
    assert (one.vcpus, one.memory_gib, one.gpu_name, one.gpu_count, one.gpu_mib) == (4, 16.0, "T4", 1, 16384)
    assert (one.arch, one.nvidia, one.usable_reason, one.gpu) == ("x86_64", True, None, "1x T4 16 GB")


def test_arm_is_told_by_the_processor_not_by_the_name() -> None:
    assert check("g5g.xlarge", info("g5g.xlarge", [gpu("T4g")], arch="arm64")).arch == "arm64"


@pytest.mark.parametrize(("mib", "sold_as"), [(16384, 16), (22888, 24), (45776, 48), (81920, 80), (144384, 141)])
def test_gpu_memory_is_named_by_the_size_it_is_sold_by(mib: int, sold_as: int) -> None:
    assert types.gpu_gb(mib) == sold_as


@pytest.mark.parametrize(
    ("name", "entry", "reason"),
    [
        ("m7i.large", info("m7i.large", None), "no GPU"),
        ("g4ad.xlarge", info("g4ad.xlarge", [gpu("Radeon Pro V520", "AMD")]), "AMD"),
        ("g9x.xlarge", info("g9x.xlarge", [gpu("Radeon", "AMD")]), "AMD"),
        ("dl1.24xlarge", info("dl1.24xlarge", [gpu("Gaudi HL-205", "Habana", 8)]), "Habana"),
        ("g6f.xlarge", info("g6f.xlarge", [gpu("L4", count=0, mib=2861)]), "fraction"),
        ("g8f.xlarge", info("g8f.xlarge", [gpu("L8", count=0)]), "fraction"),
        ("p3.2xlarge", info("p3.2xlarge", [gpu("V100")]), "V100"),
    ],
)
def test_a_type_that_cuda_cannot_use_is_refused_with_another(name: str, entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        check(name, entry)
    assert caught.value.exit_code is ExitCode.REFUSED
    assert caught.value.code == "no_cuda"
    assert "g4dn.xlarge" in (caught.value.hint or "")
    assert caught.value.consequence == "nothing was created"


@pytest.mark.parametrize("name", ["g4ad.xlarge", "dl1.24xlarge", "g6f.xlarge", "p3.2xlarge", "trn1.2xlarge"])
def test_a_known_family_is_refused_although_ec2_says_nothing(name: str) -> None:
    with pytest.raises(Refused) as caught:
        types.refuse_known(name)
    assert caught.value.code == "no_cuda"


def test_an_own_image_may_serve_an_older_gpu_but_no_other_maker() -> None:
    assert check("p3.2xlarge", info("p3.2xlarge", [gpu("V100")]), own_image=True).gpu_name == "V100"
    with pytest.raises(Refused, match="AMD"):
        check("g4ad.xlarge", info("g4ad.xlarge", [gpu("Radeon", "AMD")]), own_image=True)


def test_a_typing_mistake_names_near_matches() -> None:
    with pytest.raises(UsageError, match=r"no instance type g4dn\.xlrge") as caught:
        check("g4dn.xlrge")
    assert caught.value.exit_code is ExitCode.USAGE
    assert "g4dn.xlarge" in (caught.value.hint or "")


def test_what_is_nothing_like_a_type_names_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        check("zz99.gigantic")
    assert "cloudtrain instances" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["", "g4dn", "T4", "g4dn.xlarge,g6.xlarge", "g*.xlarge", "../etc"])
def test_what_cannot_be_a_type_is_refused_without_a_look_up(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        types.refuse_known(name)
    assert caught.value.code == "unknown_type"


@pytest.mark.parametrize(("typed", "meant"), [("g4dn-xlarge", "g4dn.xlarge"), ("G5.2xlarge", "g5.2xlarge")])
def test_what_was_probably_meant_is_of_the_price_table_that_comes_along(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        types.refuse_known(typed)
    assert caught.value.hint == f"did you mean {meant}?"


def test_a_type_that_exists_elsewhere_is_not_offered_here() -> None:
    with pytest.raises(Refused, match=r"g6\.xlarge is not offered in us-east-1") as caught:
        check("g6.xlarge")
    assert caught.value.code == "not_offered"


def test_a_type_that_is_sold_in_blocks_only_is_refused() -> None:
    entry = info("p6-b200.48xlarge", [gpu("B200", count=8)], SupportedUsageClasses=["capacity-block"])
    with pytest.raises(Refused, match="only as capacity-block"):
        check("p6-b200.48xlarge", entry)
    with pytest.raises(Refused) as caught:
        check("g4dn.xlarge", info("g4dn.xlarge", [gpu("T4")], SupportedUsageClasses=["on-demand"]), market="spot")
    assert caught.value.hint == "run without --spot"
