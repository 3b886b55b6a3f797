"""The ids that AWS gave to the calls which start and end machines or move their end: its support asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.notes import AwsRequest, Journal, RunNotes
from cloudtrain.provider.ec2.clients import Clients

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


@contextmanager
def recorded(clients: Clients, journal: Journal, clock: Callable[[], float] = time.time) -> Iterator[Clients]:
    """`clients`. While this lasts, put every answered call of `CALLS` into the journal's note `aws_requests`.

    Each entry: `call`, `id` (AWS's request id), `at` (unix seconds), `error` (AWS's code, None where it was done). A
    call that got no answer has no id and is not there.
    """

    def note(parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
        done, refused = parsed.get("ResponseMetadata", {}), parsed.get("Error", {})
        entry = AwsRequest(call=model.name, id=done.get("RequestId"), at=clock(), error=refused.get("Code"))
        # A registry that cannot be written is reported by the next write, which matters more than this one.
        with suppress(CloudtrainError):
            journal.write(RunNotes(aws_requests=(*journal.read(RunNotes).aws_requests, entry)[-MOST:]))

    emitters = [client.meta.events for client in {id(c): c for c in (clients.ec2, clients.ec2_launch)}.values()]
    for emitter in emitters:
        for call in CALLS:
            emitter.register(f"after-call.ec2.{call}", note)
    try:
        yield clients
    finally:
        for emitter in emitters:
            for call in CALLS:
                emitter.unregister(f"after-call.ec2.{call}", note)
