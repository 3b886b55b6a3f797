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
