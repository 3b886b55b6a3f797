"""Which types could take another's place."""

from __future__ import annotations

import pytest

from cloudtrain.provider.ec2.offer import alternatives, prices

TABLE = prices.load()


@pytest.mark.parametrize(
    ("asked", "beside"),
    [
        (["g4dn.xlarge"], ("g6.xlarge", "g5.xlarge")),
        (["g6.xlarge"], ("g4dn.xlarge", "g5.xlarge")),
        (["g5.xlarge"], ("g4dn.xlarge", "g6.xlarge", "g6e.xlarge")),
        (["g4dn.4xlarge"], ("g4dn.xlarge", "g6.xlarge", "g5.xlarge")),
        (["g4dn.xlarge", "g6.xlarge"], ("g5.xlarge", "g6e.xlarge")),
        (["g4dn.xlarge", "g6.xlarge", "g5.xlarge", "g6e.xlarge"], ()),
        (["no.such"], ()),
        ([], ()),
    ],
)
def test_the_same_gpu_for_less_and_the_next_ones(asked: list[str], beside: tuple[str, ...]) -> None:
    assert alternatives.near(asked, TABLE, "us-east-1") == beside


@pytest.mark.parametrize("name", [name for name in TABLE.names if name in TABLE.shipped])
def test_only_what_could_take_its_place(name: str) -> None:
    chosen = TABLE.specs[name]
    found = alternatives.near([name], TABLE, "us-east-1")
    assert len(found) <= alternatives.MOST and name not in found
    for other in (TABLE.specs[one] for one in found):
        assert (other.arch, other.gpu_count) == (chosen.arch, chosen.gpu_count)
        assert not other.name.startswith(("p2.", "p3.", "p3dn.", "g3"))
