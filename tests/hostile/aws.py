"""What AWS says: errors, answers as they come over the wire, and what its settings files, caches and programs hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

from botocore import exceptions as sdk
from botocore.awsrequest import AWSResponse
from hypothesis import strategies as st

from cloudtrain.core.events import discard
from cloudtrain.provider.ec2 import instances, network
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.launch.launch import Launch, Slot
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.offer import account, images, prices, quota, types, zones
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.region_off import is_unknown_key
from cloudtrain.provider.ec2.translate import failure_of, translate
from tests import plans
from tests.hostile.odd import Parser, spoilt

_CODES = (
    *("AuthFailure", "RequestExpired", "UnauthorizedOperation", "OptInRequired", "VcpuLimitExceeded", "ExpiredToken"),
    *("InsufficientInstanceCapacity", "Throttling", "InvalidID.NotFound", "X.Duplicate", "InternalError", "Invalid"),
)


_ERROR = {"Code": "AuthFailure", "Message": "no. Encoded authorization failure message: x"}


def errors(told: tuple[Any, Any, int]) -> None:
    """An error, through the translator: what it says, the date of the answer, and its status."""
    said, date, status = told
    headers = {} if date is None else {"date": date}
    metadata: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    answer: Any = {"Error": said if isinstance(said, dict) else {}, "ResponseMetadata": metadata}
    error = sdk.ClientError(answer, "RunInstances")
    failure_of(error)
    is_unknown_key(answer["Error"])
    raise translate(error, "launch", profile="student")


class Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, amount: int = 0, **ignored: Any) -> Iterator[bytes]:
        yield self._body


@cache
def _clients() -> tuple[Clients, list[bytes]]:
    """Clients whose calls are answered with what stands in the list."""
    clients = Clients(region="us-east-1", endpoint_url="http://127.0.0.1:9", access_key=("AKIAX", "x"))
    body = [b""]

    def send(**ignored: Any) -> AWSResponse:
        return AWSResponse("http://127.0.0.1:9", 200, {"Content-Type": "text/xml"}, Raw(body[0]))

    clients._session.events.register("before-send", send)
    return clients, body


_TAGS = [{"key": "cloudtrain:run", "value": "r"}, {"key": "cloudtrain:expires-at", "value": "2026-11-30T08:00:00Z"}]
_INSTANCE = {
    "instanceId": "i-0a1b",
    "instanceType": "g4dn.xlarge",
    "imageId": "ami-0123456789",
    "instanceState": {"code": "16", "name": "terminated"},
    "launchTime": "2026-11-30T08:00:00.000Z",
    "placement": {"availabilityZone": "us-east-1a"},
    "ipAddress": "203.0.113.7",
    "stateReason": {"code": "Server.SpotInstanceTermination", "message": "Server.SpotInstanceTermination: x"},
    "instanceLifecycle": "spot",
    "blockDeviceMapping": [{"deviceName": "/dev/sda1", "ebs": {"volumeId": "vol-1"}}],
    "tagSet": _TAGS,
    "cpuOptions": {"coreCount": "2", "threadsPerCore": "2"},
}
_EVERYTHING = {
    "reservationSet": [{"instancesSet": [_INSTANCE]}],
    "volumeSet": [{"volumeId": "vol-1", "size": "100", "status": "in-use", "createTime": "2026-11-30T08:00:00Z"}],
    "securityGroupInfo": [{"groupId": "sg-1", "tagSet": _TAGS, "ipPermissions": [{"fromPort": "22"}]}],
}
_SUBNET = {"subnetId": "s", "availabilityZone": "a", "vpcId": "v", "availableIpAddressCount": "9"}
_TYPE = {
    "instanceType": "g4dn.xlarge",
    "vCpuInfo": {"defaultVCpus": "4"},
    "memoryInfo": {"sizeInMiB": "16384"},
    "gpuInfo": {"gpus": [{"name": "T4", "manufacturer": "NVIDIA", "count": "1", "memoryInfo": {"sizeInMiB": "16384"}}]},
    "processorInfo": {"supportedArchitectures": ["x86_64"]},
}
_IMAGE = {
    "imageId": "ami-0123456789",
    "name": "Ubuntu",
    "architecture": "x86_64",
    "rootDeviceName": "/dev/sda1",
    "blockDeviceMapping": [{"deviceName": "/dev/sda1", "ebs": {"volumeSize": "45"}}],
}
_SPOT = {"instanceType": "t", "availabilityZone": "a", "timestamp": "2026-11-30T08:00:00Z", "spotPrice": "0.3"}
_LINE = {
    "Name": "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.9-ubuntu-24.04/latest/ami-id",
    "Value": "ami-0123456789",
    "LastModifiedDate": 1.7e9,
}
_TERMS = {"terms": {"OnDemand": {"a": {"priceDimensions": {"b": {"pricePerUnit": {"USD": "0.5"}}}}}}}


def _looked_at(clients: Clients) -> None:
    found = instances.one(clients, "i-0a1b")
    words = [instances.reason_of(found)]
    if found is not None:
        words += [instances.blame_of(found), str(instances.reclaimed(found)), str(instances.down_since(found, clients))]
        instances.to_instance(found, clients, Ec2Notes(), run="r", price=None).to_dict()
    json.dumps(words)


def _listed(clients: Clients) -> None:
    for item in instances.inventory(clients):
        json.dumps(item.describe())


def _launched(clients: Clients) -> None:
    journal = plans.Memory()
    Launch(clients, journal, discard, QUICK, seed="s", spot=False, give_up_at=4e9).send(Slot("t", "a"), _REQUEST)
    journal.read(Ec2Notes)


QUICK = Pace(send=0.0, settle=0.0, sleep=lambda seconds: None)
_REQUEST = {"ImageId": "ami-0123456789", "MinCount": 1, "MaxCount": 1}
# Each look at AWS, and a whole answer to it: of EC2 and STS in XML, of the others in JSON.
_LOOKS: tuple[tuple[Callable[[Clients], object], Any], ...] = (
    (_looked_at, _EVERYTHING),
    (_listed, _EVERYTHING),
    (_launched, {"instancesSet": [_INSTANCE], **_EVERYTHING}),
    (lambda clients: quota.in_use(clients.ec2, {}), _EVERYTHING),
    (lambda clients: network.default_vpc(clients), {"vpcSet": [{"vpcId": "v"}]}),
    (lambda clients: zones.routed(zones.subnets(clients.ec2), None), {"subnetSet": [_SUBNET]}),
    (lambda clients: zones.routes(clients.ec2), {"routeTableSet": [{"routeSet": [{"gatewayId": "igw-1"}]}]}),
    (
        lambda clients: zones.offered(["t"], clients.ec2),
        {"instanceTypeOfferingSet": [{"instanceType": "t", "location": "a"}]},
    ),
    (lambda clients: types.describe(["t"], clients.ec2), {"instanceTypeSet": [_TYPE]}),
    (
        lambda clients: images.resolve("x86_64", clients.ec2, clients.ssm, ami="ami-0123456789"),
        {"imagesSet": [_IMAGE]},
    ),
    (
        lambda clients: prices.spot_prices(["t"], clients.ec2, datetime.now(UTC)),
        {"spotPriceHistorySet": [_SPOT]},
    ),
    (
        lambda clients: account.identify(clients),
        {"GetCallerIdentityResult": {"UserId": "AIDA", "Arn": "arn:aws:iam::1:user/me", "Account": "1"}},
    ),
    (lambda clients: images.pick(images.list_lines("x86_64", clients.ssm)), {"Parameters": [_LINE]}),
    (lambda clients: quota.granted("L-DB2E81BA", clients.quotas), {"Quota": {"Value": 8.0}}),
    (
        lambda clients: prices.ask("g4dn.xlarge", "us-east-1", clients.pricing),
        {"PriceList": [json.dumps(_TERMS)]},
    ),
)
_JSON = ("Parameters", "Quota", "PriceList")


def _xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{_xml(inner)}</{name}>" for name, inner in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{_xml(inner)}</item>" for inner in value)
    return escape(str(value).encode("utf-8", "replace").decode())


def answers(told: tuple[int, Any]) -> None:
    """An answer as it comes over the wire, through the SDK and whatever looks for it."""
    clients, body = _clients()
    look, whole = _LOOKS[told[0]]
    said = json.dumps(told[1]) if isinstance(whole, dict) and set(whole) & set(_JSON) else f"<R>{_xml(told[1])}</R>"
    body[0] = said.encode("utf-8", "replace")
    look(clients)


PARSERS = {
    "errors of AWS": Parser(
        errors,
        st.tuples(
            spoilt(st.sampled_from(_CODES).map(lambda code: {**_ERROR, "Code": code})),
            st.none() | st.text() | st.dates().map(lambda day: day.strftime("%a, %d %b %Y 08:00:00 GMT")),
            st.sampled_from([200, 400, 403, 500, 503]),
        ),
        costs=2,
    ),
    "answers of AWS, through its SDK": Parser(
        answers,
        st.integers(0, len(_LOOKS) - 1).flatmap(
            lambda number: st.tuples(st.just(number), spoilt(st.just(_LOOKS[number][1])))
        ),
        costs=3,
    ),
}
