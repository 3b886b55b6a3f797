"""Errors as AWS words them, and how each protocol writes them down."""

from __future__ import annotations

import json
import uuid
from xml.sax.saxutils import escape

QUERY_SERVICES = frozenset({"ec2", "sts", "iam"})


class ApiError(Exception):
    """An answer of AWS that refuses a call: its code, its words and its HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def error_body(service: str, error: ApiError) -> tuple[bytes, str]:
    """Body and content type of `error` in the protocol that `service` speaks."""
    if service not in QUERY_SERVICES:
        return json.dumps({"__type": error.code, "message": error.message}).encode(), "application/x-amz-json-1.1"
    code, message, request = escape(error.code), escape(error.message), uuid.uuid4()
    if service == "ec2":
        text = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request}</RequestID></Response>"
        )
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request}</RequestId></ErrorResponse>"
        )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), "text/xml;charset=UTF-8"


_WORDS = {
    "UnauthorizedOperation": "You are not authorized to perform this operation. "
    "User: arn:aws:iam::123456789012:user/you is not authorized to perform this operation because no identity-based "
    "policy allows it. Encoded authorization failure message: EMULATED",
    "RequestLimitExceeded": "Request limit exceeded.",
    "InternalError": "An internal error has occurred",
    "InsufficientInstanceCapacity": "We currently do not have sufficient capacity in the Availability Zone you "
    "requested. Our system will be working on provisioning additional capacity.",
    "AuthFailure": "AWS was not able to validate the provided access credentials",
    "ExpiredToken": "The security token included in the request is expired",
    "RequestExpired": "Request has expired.",
    "OptInRequired": "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe.",
    "PendingVerification": "Your request for accessing resources in this region is being validated, and you will not "
    "be able to launch additional resources in this region until the validation is complete.",
    "InvalidParameterCombination": "The specified instance type is not eligible for Free Tier.",
    "VcpuLimitExceeded": "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the "
    "instance bucket that the specified instance type belongs to.",
}


def words_of(code: str, action: str) -> str:
    """What AWS says beside the error `code`."""
    return _WORDS.get(code, f"{action} was refused with {code}.")
