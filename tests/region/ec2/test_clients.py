"""A page of HTML for an answer."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from cloudtrain.provider.ec2.clients import Clients


def test_a_page_of_html_is_retried_like_any_failure_of_aws_but_not_at_the_launch(region_of: Any) -> None:
    region = region_of("html500@DescribeVpcs:2", "html500@RunInstances:1")
    clients = Clients(None, region.name, region.endpoint_url, region.access_key)
    assert clients.ec2.describe_vpcs()["Vpcs"]
    assert len(region.calls("DescribeVpcs")) == 3
    with pytest.raises(ResponseParserError):
        clients.ec2_launch.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    assert len(region.calls("RunInstances")) == 1
    region.inject("html500@DescribeVpcs:9")
    with pytest.raises(ClientError) as caught:
        clients.ec2.describe_vpcs()
    assert caught.value.response["Error"]["Message"] == "AWS sent no readable answer"
