"""One AWS session, and one client for each service and retry rule. Nothing is asked of AWS before a client is used."""

from __future__ import annotations

import copy
import ipaddress
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.parsers import ResponseParserError, ResponseParserFactory

from cloudtrain.core.errors import CloudtrainError, ConnectionFailed, UsageError
from cloudtrain.core.notes import AwsRequest, Journal, RunNotes
from cloudtrain.core.text import meant, shortened
from cloudtrain.core.version import __version__
from cloudtrain.provider.ec2.credentials import NONSENSE, check_files, look_up, prepare
from cloudtrain.provider.ec2.region_off import home_of, is_unknown_key, not_enabled
from cloudtrain.provider.ec2.translate import FOREIGN, translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_pricing import PricingClient
    from types_boto3_service_quotas import ServiceQuotasClient
    from types_boto3_ssm import SSMClient
    from types_boto3_sts import STSClient

REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
# boto3 itself does not read AWS_REGION, which every other AWS tool honours.
REGION_VARIABLES = ("CLOUDTRAIN_REGION", "AWS_REGION", "AWS_DEFAULT_REGION")
# The Pricing API has an endpoint in three Regions only, whatever the Region of the run.
PRICING_REGION = "us-east-1"
# Sessions are not safe to make clients in from several threads.
_MAKING = threading.RLock()

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60

# Calls that start and end machines or move their end: AWS's support asks for the ids that it gave to them.
CALLS = (
    "RunInstances",
    "TerminateInstances",
    "StartInstances",
    "StopInstances",
    "ModifyInstanceAttribute",
    "CreateTags",
)
# A launch that is throttled in many zones asks often; the latest calls tell how it ended.
MOST = 100


class Clients:
    """Clients of one profile, Region and endpoint, made when first used and kept.

    Args:
        profile: name of a profile; None: `AWS_PROFILE`, else the default one.
        region: None: `CLOUDTRAIN_REGION`, `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, in this order.
        endpoint_url: for every service; None: `AWS_ENDPOINT_URL` and AWS's own.
        access_key: key id and secret of an emulated Region, so that no profile and no real key is read.

    Raises:
        SignInError: the profile does not exist or cannot be read.
        UsageError: no Region is set, or it cannot be the name of one.
    """

    def __init__(
        self,
        profile: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        access_key: tuple[str, str] | None = None,
    ) -> None:
        self.endpoint_url = endpoint_url
        self._access_key = access_key
        with translated("read the AWS settings", profile=profile or os.environ.get("AWS_PROFILE")):
            self._core, self._session = _session(profile, access_key)
            self.profile = None if access_key else str(self._session.profile_name)
            self.region, self.region_source = _region(region, self._session.region_name, self.regions)
            if self.profile:
                prepare(self._core, self.profile, self.region)
        self._session.events.register("after-call", self._look_elsewhere)

    def at(self, region: str) -> Clients:
        """The same account and endpoint in another Region; itself if it is this one.

        The session is shared, so that its credentials and service models, 1 s of work, are read once. Sessions are not
        safe to make clients in from several threads.
        """
        if region == self.region:
            return self
        other = copy.copy(self)
        for name, made in vars(Clients).items():
            if isinstance(made, cached_property):
                other.__dict__.pop(name, None)
        other.region, other.region_source = _region(region, None, self.regions)
        return other

    def regions(self) -> list[str]:
        """The Regions that this SDK knows of, which may not be all there are."""
        return list(self._session.get_available_regions("ec2"))

    @contextmanager
    def recorded(self, journal: Journal, clock: Callable[[], float]) -> Iterator[Clients]:
        """Themselves. While this lasts, put every answered call of `CALLS` into the journal's note `aws_requests`.

        Each entry: `call`, `id` (AWS's request id), `at` (unix seconds), `error` (AWS's code, None where it was done).
        A call that got no answer has no id and is not there.
        """

        def note(parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
            done, refused = parsed.get("ResponseMetadata", {}), parsed.get("Error", {})
            entry = AwsRequest(call=model.name, id=done.get("RequestId"), at=clock(), error=refused.get("Code"))
            # A registry that cannot be written is told of by the next write, which matters more than this one.
            with suppress(CloudtrainError):
                journal.write(RunNotes(aws_requests=(*journal.read(RunNotes).aws_requests, entry)[-MOST:]))

        answers = [
            (made.meta.events, f"after-call.ec2.{call}") for made in (self.ec2, self.ec2_launch) for call in CALLS
        ]
        for events, answer in answers:
            events.register(answer, note)
        try:
            yield self
        finally:
            for events, answer in answers:
                events.unregister(answer, note)

    @cached_property
    def ec2(self) -> EC2Client:
        """EC2, for everything but the launch: throttling and broken answers are retried by the SDK."""
        made: EC2Client = self._client("ec2", "EC2", 5)
        made.meta.events.register("before-parse.ec2", _as_failure)
        return made

    @cached_property
    def ec2_launch(self) -> EC2Client:
        """EC2 without any retry of the SDK's own, which would ask the zone that has just said it is full again
        (`InsufficientInstanceCapacity` comes as HTTP 500)."""
        made: EC2Client = self._client("ec2", "EC2", 1)
        return made

    @cached_property
    def ssm(self) -> SSMClient:
        """Systems Manager: public parameters that name the images."""
        made: SSMClient = self._client("ssm", "SSM", 5)
        return made

    @cached_property
    def sts(self) -> STSClient:
        """Security Token Service: whose account this is."""
        made: STSClient = self._client("sts", "STS", 5)
        return made

    @cached_property
    def quotas(self) -> ServiceQuotasClient:
        """Service Quotas of the Region."""
        made: ServiceQuotasClient = self._client("service-quotas", "Service Quotas", 5)
        return made

    @cached_property
    def pricing(self) -> PricingClient:
        """The Pricing API, which always answers from us-east-1."""
        made: PricingClient = self._client("pricing", "the Pricing API", 3, PRICING_REGION)
        return made

    @cached_property
    def freetier(self) -> Any:
        """Free Tier, which knows the plan of the account; it too answers from us-east-1 alone. It has no stubs."""
        return self._client("freetier", "Free Tier", 2, PRICING_REGION)

    @cached_property
    def connect(self) -> Any:
        """EC2 Instance Connect, which shows an instance a key for a minute. It has no stubs here."""
        return self._client("ec2-instance-connect", "EC2 Instance Connect", 2)

    @cached_property
    def credentials(self) -> Credentials | None:
        """What signs the calls (`method` says where it was found); None: nothing was found. May fetch or refresh it."""
        with translated("read the credentials", profile=self.profile):
            return look_up(self._core, self.profile)

    @property
    def loopback(self) -> bool:
        """Whether EC2 is emulated on this computer: its endpoint, from wherever it was set, is a loopback address."""
        return is_loopback(self.ec2.meta.endpoint_url)

    def _look_elsewhere(self, parsed: dict[str, Any], model: Any, context: Mapping[str, Any], **ignored: Any) -> None:
        """A Region that is not enabled refuses a good key with the words for a bad one: STS at home knows which it is.

        Raises:
            Refused: the key is good there.
        """
        region = str(context.get("client_region"))
        # Look-ups come before anything that has an effect. AssumeRole is the session's own call, made while it looks
        # for its credentials: none could be signed with them.
        asked = model.name.startswith(("Describe", "Get", "List"))
        if not asked or region == home_of(region) or not is_unknown_key(parsed.get("Error") or {}):
            return
        try:
            with _MAKING:
                sts = self._session.client("sts", home_of(region), **self._options(2))
            sts.get_caller_identity()
        except FOREIGN:
            return
        credentials = self._session.get_credentials()
        raise not_enabled(region, self.profile, temporary=bool(credentials and credentials.token))

    def _client(self, service: str, name: str, attempts: int, region: str | None = None) -> Any:
        """A client that can sign: the credentials are looked for before the first is made, so that a question comes
        once, in the thread of the command. `name`: the service's, human-readable."""
        with translated(f"reach {name}", profile=self.profile):
            look_up(self._core, self.profile)
            session: Any = self._session
            with _MAKING:
                return session.client(service, region or self.region, **self._options(attempts))

    def _options(self, attempts: int) -> dict[str, Any]:
        # A proxy of the user's cannot lead back to this computer; an empty table means: none.
        here = is_loopback(self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            user_agent_extra=f"cloudtrain/{__version__}",
            proxies={} if here else None,
        )
        return {"endpoint_url": self.endpoint_url, "config": config}


def _session(profile: str | None, access_key: tuple[str, str] | None) -> tuple[botocore.session.Session, boto3.Session]:
    """The SDK's session, and the part of it that looks for credentials."""
    if access_key is None:
        core = botocore.session.get_session()
        core.register_component("response_parser_factory", _Parsers())
        check_files(core, profile or os.environ.get("AWS_PROFILE"))
        return core, boto3.Session(profile_name=profile, botocore_session=core)
    # Cut off from the user's own files and AWS_PROFILE, which may name a profile that does not exist.
    unset = (None, None, None, None)
    files = (None, None, os.devnull, None)
    core = botocore.session.Session({"profile": unset, "config_file": files, "credentials_file": files})
    core.register_component("response_parser_factory", _Parsers())
    return core, boto3.Session(*access_key, botocore_session=core)


class Unreadable(ConnectionFailed, ResponseParserError):
    """AWS's answer is none: for `translated` like all that the SDK cannot read, elsewhere an error of ours."""

    code = "aws_unavailable"

    def __init__(self, why: str) -> None:
        super().__init__(f"AWS gave no usable answer: {shortened(why)}", hint="run the same command again")


class _Answer(dict[str, Any]):
    """A part of AWS's answer: one that does not hold what is looked for there is none."""

    def __missing__(self, name: str) -> NoReturn:
        raise Unreadable(f"it has no {name}")


class _Parsers(ResponseParserFactory):
    """The SDK's own, but whatever AWS has sent, `Unreadable` is all that reading it raises, and each field is of its
    type: a launch whose answer cannot be read may have been done."""

    def create_parser(self, protocol_name: Any) -> Any:
        """See `ResponseParserFactory`."""
        parser: Any = super().create_parser(protocol_name)
        read = parser.parse

        def parse(response: Any, shape: Any) -> Any:
            try:
                return _answer(read(response, shape), shape)
            except NONSENSE as error:
                raise Unreadable(str(error)) from error

        parser.parse = parse
        return parser


_TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "structure": dict,
    "map": dict,
    "list": list,
    "timestamp": datetime,
}


def _answer(value: Any, shape: Any) -> Any:
    """`value`, if it is what the `shape` of the SDK's model says."""
    if shape is not None and not isinstance(value, _TYPES.get(shape.type_name, object)):
        raise TypeError(f"{shape.name} is no {shape.type_name}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds an invalid number")
    if isinstance(value, dict):
        members = getattr(shape, "members", {})
        every = getattr(shape, "value", None)
        return _Answer({key: _answer(inner, members.get(key, every)) for key, inner in value.items()})
    return [_answer(inner, getattr(shape, "member", None)) for inner in value] if isinstance(value, list) else value


def _as_failure(response_dict: dict[str, Any], **ignored: Any) -> None:
    """Give an answer of HTTP 500 that is no XML, such as a page of HTML, the form of EC2's own failures.

    The SDK retries those by their status, and breaks off at what it cannot read. Not for the launch, which tells the
    two apart.
    """
    body = bytes(response_dict.get("body") or b"")
    if response_dict["status_code"] >= 500 and b"<Response>" not in body:
        told = "AWS sent no readable answer"
        response_dict["body"] = (
            f"<Response><Errors><Error><Code>InternalError</Code><Message>{told}</Message></Error></Errors></Response>"
        ).encode()


def is_loopback(url: str | None) -> bool:
    """Whether `url` leads to this computer."""
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _region(asked: str | None, configured: str | None, known: Callable[[], list[str]]) -> tuple[str, str]:
    """The Region and where it was found. `configured` is boto3's own finding, which ends with the profile's."""
    found = [(asked, "--region")]
    found += [(os.environ.get(name), name) for name in REGION_VARIABLES]
    found += [(configured, "the profile")]
    for region, source in found:
        if not region:
            continue
        if not REGION.fullmatch(region):
            raise UsageError(
                f"{region!r} cannot be an AWS Region (from {source})",
                hint=meant(region, known(), "use a name such as us-east-1"),
                consequence="nothing was created",
                code="bad_region",
            )
        return region, source
    raise UsageError(
        "no AWS Region is set",
        hint="--region us-east-1, or set AWS_REGION; looked at: --region, "
        + ", ".join(REGION_VARIABLES)
        + ", the profile's region",
        consequence="nothing was created",
        code="no_region",
    )
