"""vCPU quotas: what the account may run at once, what it runs now, and how to ask for more.

A new account may run 0 vCPU of every GPU family, so this is the first refusal that most people meet.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from cloudtrain.core.errors import CloudtrainError, QuotaExceeded, SignInError
from cloudtrain.provider.ec2.offer import prices
from cloudtrain.provider.ec2.translate import NOTHING, code_of, translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_service_quotas import ServiceQuotasClient

SPOT, ON_DEMAND = "spot", "on-demand"
# Codes of the service "ec2" in Service Quotas, each counted in vCPUs for one Region.
_NAMES = {
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-417A185B": "Running On-Demand P instances",
    "L-1216C47A": "Running On-Demand Standard instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
    "L-C4BD4855": "All P5 Spot Instance Requests",
    "L-34B43A08": "All Standard Spot Instance Requests",
}
_STANDARD = frozenset([*"acdhimrtz", "im", "is"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """One quota of the account in one Region. All counts are vCPUs.

    Attributes:
        code: AWS's code; None: this family's is not known here.
        granted: what the account may run at once; None: unknown.
        in_use: what pending and running instances take now; None: unknown.
        unknown_because: why `granted` is None.
    """

    code: str | None
    name: str
    region: str
    granted: int | None = None
    in_use: int | None = None
    unknown_because: str | None = None

    @property
    def free(self) -> int | None:
        """vCPUs that a launch may still take; None: unknown."""
        return None if self.granted is None else max(0, self.granted - (self.in_use or 0))

    def fits(self, needed: int) -> bool | None:
        """Whether `needed` vCPUs may be launched; None: unknown."""
        return None if self.free is None else needed <= self.free

    def command(self, needed: int) -> str | None:
        """The AWS CLI command that asks for enough; None: the code is not known."""
        if self.code is None:
            return None
        return (
            "aws service-quotas request-service-quota-increase --service-code ec2"
            f" --quota-code {self.code} --desired-value {needed + (self.in_use or 0)} --region {self.region}"
        )


def code_of_type(name: str, market: str = ON_DEMAND) -> str | None:
    """Quota code that launches of this type count against; None: not known here."""
    letters = re.match(r"[a-z]+", name)
    series = letters.group() if letters else ""
    spot = market == SPOT
    if series in ("g", "gr", "vt"):
        return "L-3819A6DF" if spot else "L-DB2E81BA"
    if series == "p":
        if not spot:
            return "L-417A185B"
        return {"2": "L-7212CCBC", "3": "L-7212CCBC", "4": "L-7212CCBC", "5": "L-C4BD4855"}.get(name[1:2])
    # Families of several letters that begin like a standard one (inf, trn, mac, hpc, dl) have quotas of their own.
    if series in _STANDARD:
        return "L-34B43A08" if spot else "L-1216C47A"
    return None


def granted(code: str, quotas: ServiceQuotasClient) -> int | str:
    """vCPUs that the account may run at once, or why that cannot be known.

    Raises:
        SignInError: no valid credentials; a right that is missing is an answer, not a failure.
    """
    try:
        with translated("look up the quota"):
            try:
                value = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
            except ClientError as error:
                # No value of the account's own: AWS's default holds.
                if code_of(error) != "NoSuchResourceException":
                    raise
                answer = quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)
                value = answer["Quota"]["Value"]
    except SignInError as error:
        if error.code != "denied":
            raise
        return "the right servicequotas:GetServiceQuota is missing"
    except CloudtrainError as error:
        return error.message
    except (KeyError, TypeError):
        return "Service Quotas gave no value"
    return math.floor(value)


def in_use(ec2: EC2Client, vcpus: Mapping[str, int]) -> Counter[str]:
    """vCPUs of pending and running instances by quota code, by one DescribeInstances.

    Args:
        vcpus: vCPUs by type, for those looked up; others are taken from the shipped table, or by the cores that the
            instance itself reports.

    Raises:
        SignInError, ConnectionFailed: EC2 did not answer.
    """
    used: Counter[str] = Counter()
    shipped = prices.load().specs
    with translated("look up running instances"):
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        )
        for page in pages:
            for reservation in page["Reservations"]:
                for one in reservation["Instances"]:
                    market = SPOT if one.get("InstanceLifecycle") == "spot" else ON_DEMAND
                    code = code_of_type(str(one["InstanceType"]), market)
                    if code is not None:
                        name = str(one["InstanceType"])
                        known = vcpus.get(name) or (shipped[name].vcpus if name in shipped else 0)
                        cores = one.get("CpuOptions", {})
                        used[code] += known or cores.get("CoreCount", 0) * cores.get("ThreadsPerCore", 1)
    return used


def survey(
    codes: Iterable[str], region: str, used: Mapping[str, int] | None, quotas: ServiceQuotasClient
) -> dict[str, Quota]:
    """The quotas with these codes, one call each.

    Args:
        used: what `in_use` counted; None: unknown (yet, see `with_usage`).
    """
    answers = {code: granted(code, quotas) for code in sorted(set(codes))}
    found = {
        code: Quota(
            code=code,
            name=_NAMES[code],
            region=region,
            granted=answer if isinstance(answer, int) else None,
            unknown_because=answer if isinstance(answer, str) else None,
        )
        for code, answer in answers.items()
    }
    return with_usage(found, used)


def with_usage(found: Mapping[str, Quota], used: Mapping[str, int] | None) -> dict[str, Quota]:
    """The same quotas with what `in_use` counted; None: unknown."""
    return {code: replace(one, in_use=None if used is None else used.get(code, 0)) for code, one in found.items()}


def unlisted(name: str, market: str, region: str) -> Quota:
    """The quota of a type whose code is not known here."""
    return Quota(
        code=None, name=f"{market} quota of {name}", region=region, unknown_because=f"no quota code is known for {name}"
    )


def preflight(name: str, needed: int, quota: Quota) -> str | None:
    """A warning if the quota is unknown, None if it suffices.

    Raises:
        QuotaExceeded: the launch would be refused.
    """
    fits = quota.fits(needed)
    if fits is None:
        why = quota.unknown_because or "it could not be read"
        return f"quota for {name} unknown ({why}); the launch is refused if it is below {needed} vCPU"
    if fits:
        return None
    taken = f", {quota.in_use} in use" if quota.in_use else ""
    raise QuotaExceeded(
        f"{name} needs {needed} vCPU, the quota allows {quota.granted}{taken} ({quota.name}, {quota.region})",
        hint=quota.command(needed),
        consequence=NOTHING,
        detail="AWS answers such requests within minutes to days; free meanwhile: cloudtrain run --model 3 --dry-run",
    )
