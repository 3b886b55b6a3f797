"""A Region that an account has not enabled refuses a good key with the very words for a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtrain.core.errors import Refused
from cloudtrain.provider.ec2.translate import NOTHING, about_something_else, with_profile

_UNKNOWN_KEY = {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"}
# By the beginning of a Region's name; all others are of the partition of us-east-1.
_HOMES = {"cn-": "cn-north-1", "us-gov-": "us-gov-west-1"}


def home_of(region: str) -> str:
    """The Region of the same partition that is enabled in every account."""
    return next((home for start, home in _HOMES.items() if region.startswith(start)), "us-east-1")


def is_unknown_key(said: Mapping[str, Any]) -> bool:
    """Whether a service refused the key as one that it does not know; `said`: `Error` of its answer."""
    return str(said.get("Code")) in _UNKNOWN_KEY and not about_something_else(said.get("Code"), said.get("Message"))


def not_enabled(region: str, profile: str | None, *, temporary: bool) -> Refused:
    """Our error for a Region that refuses a key which another one knows; `temporary`: the key is of a session."""
    command = with_profile(f"aws account enable-region --region-name {region}", profile)
    session = "if it is: sessions of the global STS endpoint do not hold there; AWS_STS_REGIONAL_ENDPOINTS=regional"
    return Refused(
        f"{region} is not enabled in this account: the key is known elsewhere",
        hint=f"{command} (it takes some minutes), or another Region: --region us-east-1",
        consequence=NOTHING,
        code="account",
        detail=session if temporary else None,
    )
