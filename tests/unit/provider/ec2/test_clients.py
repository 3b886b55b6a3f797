"""Profile, Region and endpoint: where each is taken from, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse

from cloudtrain.core.errors import ConnectionFailed, SignInError, UsageError
from cloudtrain.core.events import Event, Noted
from cloudtrain.provider.ec2 import instances
from cloudtrain.provider.ec2.clients import Clients, is_loopback
from cloudtrain.provider.ec2.launch.launch import Launch, Slot
from tests.hostile.aws import QUICK, Raw
from tests.plans import Memory

KEY = ("AKIAREHEARSAL0000000", "rehearsal")


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text("[default]\nregion = eu-west-1\n[profile student]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))


def test_the_region_is_taken_from_the_first_place_that_names_one(
    configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (Clients().region, Clients().region_source) == ("eu-west-1", "the profile")
    assert Clients("student").region == "eu-north-1"
    for name, region in (
        ("AWS_DEFAULT_REGION", "us-west-1"),
        ("AWS_REGION", "us-west-2"),
        ("CLOUDTRAIN_REGION", "us-east-2"),
    ):
        monkeypatch.setenv(name, region)
        assert (Clients().region, Clients().region_source) == (region, name)
    assert (Clients(region="us-east-1").region, Clients(region="us-east-1").region_source) == ("us-east-1", "--region")


@pytest.mark.parametrize(
    "said",
    [
        "<R/>",
        "<R><reservationSet><item><instancesSet><item/></instancesSet></item></reservationSet></R>",
        "<R><instancesSet/></R>",
        "<R><instancesSet><item/></instancesSet></R>",
        "<R><instancesSet><item><launchTime>soon</launchTime></item></instancesSet></R>",
        "<R><instancesSet><item><amiLaunchIndex>x</amiLaunchIndex></item></instancesSet></R>",
    ],
)
def test_an_answer_without_what_is_looked_for_is_an_error_of_ours_and_one_that_a_launch_is_asked_again_for(
    said: str,
) -> None:
    clients = Clients(region="us-east-1", endpoint_url="http://127.0.0.1:9", access_key=KEY)
    answer = AWSResponse("http://127.0.0.1:9", 200, {}, Raw(said.encode()))
    clients._session.events.register("before-send", lambda **ignored: answer)
    with pytest.raises(ConnectionFailed) as caught:
        instances.inventory(clients)
    assert caught.value.code == "aws_unavailable"
    sent: list[Event] = []
    launch = Launch(clients, Memory(), sent.append, QUICK, seed="s", spot=False, give_up_at=4e9)
    with pytest.raises(ConnectionFailed):
        launch.send(Slot("t", "a"), {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1})
    assert any("asking again with the same token" in event.message for event in sent if isinstance(event, Noted))


def test_without_any_region_all_places_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        Clients()
    assert caught.value.code == "no_region" and "AWS_REGION" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["us-east1", "US-EAST-1", "x", "us-east-1;rm", "localhost", "us-east-1.evil.example"])
def test_what_cannot_be_a_region_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Clients(region=name)
    assert caught.value.code == "bad_region" and "--region" in caught.value.message


@pytest.mark.parametrize("typed", ["us-east1", "US-EAST-1", "useast-1"])
def test_the_region_that_was_probably_meant(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        Clients(region=typed)
    assert caught.value.hint == "did you mean us-east-1?"


@pytest.mark.parametrize("name", ["us-east-1", "eu-central-2", "us-gov-west-1", "ap-southeast-4", "cn-north-1"])
def test_real_regions_pass(name: str) -> None:
    assert Clients(region=name).region == name


def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SignInError) as caught:
        Clients("nope", "us-east-1")
    assert 'profile "nope"' in caught.value.message and caught.value.code == "no_profile"
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(SignInError) as from_environment:
        Clients(region="us-east-1")
    assert 'profile "missing"' in from_environment.value.message


def test_an_emulated_region_reads_nothing_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    clients = Clients(region="us-east-1", endpoint_url="http://127.0.0.1:4566", access_key=KEY)
    assert clients.profile is None and clients.loopback
    assert clients.ec2.meta.config.proxies == {}


def test_the_endpoint_of_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert Clients(region="us-east-1").loopback
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://ec2.internal.example")
    assert not Clients(region="us-east-1").loopback


def test_only_the_launch_client_never_retries() -> None:
    clients = Clients(region="us-east-1", access_key=KEY)
    assert clients.ec2_launch.meta.config.retries["total_max_attempts"] == 1
    assert clients.ec2.meta.config.retries["total_max_attempts"] > 1
    assert clients.pricing.meta.region_name == "us-east-1"
    for client in (clients.ec2, clients.ec2_launch, clients.ssm, clients.sts, clients.quotas):
        assert client.meta.config.connect_timeout <= 10 and client.meta.config.read_timeout <= 60


def test_another_region_of_the_same_account() -> None:
    clients = Clients(region="us-east-1", endpoint_url="http://127.0.0.1:9", access_key=KEY)
    assert clients.at("us-east-1") is clients
    assert clients.at("eu-west-1").region == "eu-west-1" and clients.at("eu-west-1").loopback


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://localhost:80", True),
        ("http://[::1]:5", True),
        ("https://ec2.us-east-1.amazonaws.com", False),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.example", False),
        (None, False),
    ],
)
def test_loopback(url: str | None, here: bool) -> None:
    assert is_loopback(url) is here
