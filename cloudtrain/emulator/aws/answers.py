"""Services that moto does not have: Service Quotas for EC2, Pricing, the free tier's plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudtrain.emulator.aws import catalogue
from cloudtrain.emulator.aws.replies import ApiError

SERVICES = frozenset({"servicequotas", "pricing", "freetier"})


def answer(
    service: str, action: str, parameters: Mapping[str, Any], quotas: Mapping[str, float], region: str, account: str
) -> dict[str, Any]:
    """The answer to one call, JSON-ready.

    Raises:
        ApiError: the call or what it names does not exist.
    """
    if service == "servicequotas" and action in ("GetServiceQuota", "GetAWSDefaultServiceQuota"):
        granted = quotas if action == "GetServiceQuota" else dict.fromkeys(quotas, 0.0)
        return {"Quota": _quota(parameters, granted, region, account)}
    if (service, action) == ("servicequotas", "ListServiceQuotas"):
        return {"Quotas": [_row(quota, quotas[quota.code], region, account) for quota in catalogue.QUOTAS]}
    if (service, action) == ("pricing", "GetProducts"):
        return {"FormatVersion": "aws_v1", "PriceList": _products(parameters)}
    if (service, action) == ("freetier", "GetAccountPlanState"):
        return {"accountId": account, "accountPlanType": "PAID", "accountPlanStatus": "ACTIVE"}
    raise ApiError("UnknownOperationException", f"{service} {action} does not exist in the emulated region")


def _quota(parameters: Mapping[str, Any], quotas: Mapping[str, float], region: str, account: str) -> dict[str, Any]:
    code = str(parameters.get("QuotaCode", ""))
    row = next((q for q in catalogue.QUOTAS if q.code == code and parameters.get("ServiceCode") == "ec2"), None)
    if row is None:
        raise ApiError("NoSuchResourceException", "The request failed because the specified resource does not exist.")
    return _row(row, quotas[code], region, account)


def _row(quota: catalogue.Quota, value: float, region: str, account: str) -> dict[str, Any]:
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaCode": quota.code,
        "QuotaArn": f"arn:aws:servicequotas:{region}:{account}:ec2/{quota.code}",
        "QuotaName": quota.name,
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def _products(parameters: Mapping[str, Any]) -> list[str]:
    """Price list entries as JSON texts, for the filters that a price look-up uses."""
    wanted = {str(f.get("Field")): str(f.get("Value")) for f in parameters.get("Filters") or ()}
    rows = []
    for name, price in catalogue.PRICES.items():
        attributes = {
            "instanceType": name, "regionCode": wanted.get("regionCode", "us-east-1"), "operatingSystem": "Linux",
            "preInstalledSw": "NA", "tenancy": "Shared", "capacitystatus": "Used", "marketoption": "OnDemand",
            "licenseModel": "No License required", "operation": "RunInstances",
        }  # fmt: skip
        if parameters.get("ServiceCode") != "AmazonEC2" or any(attributes.get(f, v) != v for f, v in wanted.items()):
            continue
        dimension = {
            "unit": "Hrs",
            "description": f"${price} per On Demand Linux {name} Instance Hour",
            "pricePerUnit": {"USD": f"{price:.10f}"},
        }
        product = {"productFamily": "Compute Instance", "attributes": attributes}
        term = {"priceDimensions": {"EMULATED.1": dimension}, "effectiveDate": "2026-07-20T00:00:00Z"}
        entry = {"product": product, "serviceCode": "AmazonEC2", "terms": {"OnDemand": {"EMULATED": term}}}
        rows.append(json.dumps(entry))
    return rows[: int(parameters.get("MaxResults") or 100)]
