"""A Region that the account has not enabled is told from a bad key, though AWS has the same words for both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloudtrain.core.errors import Refused, SignInError
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2 import doctor
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account
from cloudtrain.provider.ec2.translate import translated
from tests.region.ec2.stand_in import OFF, Aws, opened


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with opened() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAXXXXXXXXXXXXXXXX")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        yield server


@pytest.mark.parametrize("service", ["sts", "ec2"])
def test_the_region_is_named_and_no_new_key_is_asked_for(aws: Aws, service: str) -> None:
    clients = Clients(None, OFF)
    with pytest.raises(Refused) as caught, translated("look up what there is", profile=clients.profile):
        clients.ec2.describe_vpcs() if service == "ec2" else account.identify(clients)
    error = caught.value
    assert error.message.startswith(f"{OFF} is not enabled in this account") and error.code == "account"
    assert f"aws account enable-region --region-name {OFF}" in str(error.hint)
    assert "new access key" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize("region", [OFF, "us-east-1"])
def test_a_key_that_no_region_knows_stays_a_bad_key(aws: Aws, region: str) -> None:
    aws.good = False
    with pytest.raises(SignInError) as caught:
        account.identify(Clients(None, region))
    assert caught.value.code == "bad_key"


def test_the_doctor_says_it_of_the_region_and_nothing_of_the_key(aws: Aws) -> None:
    checks = {check.name: check for check in doctor.checks(Ec2Spec(region=OFF))}
    assert checks["region"].status == "fail" and "not enabled" in checks["region"].message
    assert "enable-region" in str(checks["region"].fix) and "aws" not in checks


def test_an_image_that_is_not_shared_is_neither(aws: Aws) -> None:
    aws.ec2_says = "Not authorized for images: [ami-0123]"
    with pytest.raises(Refused) as caught, translated("look up the image"):
        Clients(None, OFF).ec2.describe_images(ImageIds=["ami-0123"])
    assert caught.value.code == "aws_refused" and "ami-0123" in caught.value.message
