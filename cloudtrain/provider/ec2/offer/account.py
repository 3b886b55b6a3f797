"""Whose account signs the calls: shown to people with the number masked, so that a screenshot gives nothing away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.credentials import Credentials

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.translate import translated

# How botocore calls the places it finds credentials in, and how people do.
KINDS = {
    "login": "aws login",
    "sso": "single sign-on",
    "env": "environment variables",
    "shared-credentials-file": "access key in the credentials file",
    "config-file": "access key in the config file",
    "assume-role": "assumed role",
    "assume-role-with-web-identity": "web identity",
    "custom-process": "credential process",
    "container-role": "container role",
    "iam-role": "instance role",
    "explicit": "given access key",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The caller.

    Attributes:
        owner: the mark of what the caller launches (`tags.owner_of`).
        owners: every mark that the caller's machines may carry.
        number: 12 digits; not for output.
        profile: None: no profile is in use.
        kind: where the credentials come from, in words.
        expires: when they end; None: they do not, or it is not known.
    """

    owner: str
    owners: frozenset[str]
    number: str
    profile: str | None
    kind: str
    expires: datetime | None = None

    @property
    def masked(self) -> str:
        """The number as it may be shown: "...9012"."""
        return f"...{self.number[-4:]}"

    @property
    def text(self) -> str:
        """Human-readable: "profile student, account ...9012"."""
        return f"profile {self.profile}, account {self.masked}" if self.profile else f"account {self.masked}"

    def lasts(self, now: datetime) -> str:
        """Human-readable: how long the session goes on."""
        if self.expires is None:
            return "no known end"
        left = int((self.expires - now).total_seconds())
        if left <= 0:
            return "ended"
        return f"ends in {left // 3600} h" if left >= 2 * 3600 else f"ends in {max(1, left // 60)} min"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPlan:
    """AWS's plan of the account.

    Attributes:
        kind: "FREE" or "PAID".
        credit_usd: credit that is left; None: not told.
    """

    kind: str
    credit_usd: float | None = None

    @property
    def free(self) -> bool:
        """A free plan may launch small types only, none with a GPU."""
        return self.kind == "FREE"


def identify(clients: Clients) -> Account:
    """The caller, by one GetCallerIdentity, which needs no right at all.

    Raises:
        SignInError: credentials are missing, expired, wrong, or this computer's clock is.
        ConnectionFailed: AWS did not answer.
    """
    with translated("ask who is signed in", profile=clients.profile):
        identity = clients.sts.get_caller_identity()
    credentials = clients.credentials
    return Account(
        owner=tags.owner_of(identity["UserId"]),
        owners=tags.owners_of(identity["UserId"], identity["Arn"]),
        number=identity["Account"],
        profile=clients.profile,
        kind=KINDS.get(credentials.method, credentials.method) if credentials else "unknown",
        expires=_expiry(credentials),
    )


def _expiry(credentials: Credentials | None) -> datetime | None:
    # botocore has no public way to ask; where the attribute is missing the end is simply not shown.
    end = getattr(credentials, "_expiry_time", None)
    return end.astimezone(UTC) if isinstance(end, datetime) else None


def disk_key(clients: Clients) -> str | None:
    """The key that new disks are encrypted with unasked, without its account's number; "": they are not; None: it may
    not be asked."""
    try:
        with translated("ask how new disks are encrypted", profile=clients.profile):
            if not clients.ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]:
                return ""
            return clients.ec2.get_ebs_default_kms_key_id()["KmsKeyId"].rpartition(":")[2]
    except CloudtrainError:
        return None


def plan(clients: Clients) -> AccountPlan | None:
    """The account's plan by GetAccountPlanState; None: the API does not exist here, or may not be asked."""
    try:
        with translated("ask for the account's plan", profile=clients.profile):
            answer = clients.freetier.get_account_plan_state()
    except CloudtrainError:
        return None
    credit = answer.get("accountPlanRemainingCredits", {}).get("amount")
    return AccountPlan(
        kind=str(answer.get("accountPlanType", "")),
        credit_usd=float(credit) if credit is not None else None,
    )
