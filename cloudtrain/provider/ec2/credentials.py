"""What signs the calls: looked for once in a session, asked for by our own console, shared with the AWS CLI's cache.

Whatever a profile names (a role with MFA, a program, single sign-on) is foreign: it may fail, say nonsense, or not end.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import botocore.session
from botocore import exceptions as sdk
from botocore.credentials import Credentials, ProcessProvider, create_credential_resolver
from botocore.utils import JSONFileCache, parse_timestamp

from cloudtrain.core import questions
from cloudtrain.core.errors import SignInError
from cloudtrain.core.text import shortened
from cloudtrain.provider.ec2.translate import NOTHING, profile_text, with_profile

# Where the AWS CLI keeps the sessions of assumed roles: one MFA code serves both until the session ends.
CACHE = "~/.aws/cli/cache"
CODE = re.compile(r"\d{6}")
CODE_TRIES = 3
# A `credential_process` may ask a person something, and gets this many seconds.
PROCESS_LIMIT_S = 60.0
# Far above any answer of one.
PROCESS_BYTES = 1 << 16
# What reading foreign values raises, here and in the SDK: no value of the kind, too deep, too large, of no sense.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
# Two that look at once would ask for the code twice: the second finds what the first has put into the cache.
_ONE_LOOKS = threading.Lock()


def check_files(core: botocore.session.Session, profile: str | None) -> None:
    """See that AWS's settings files can be read: the SDK takes one that cannot for one that is not there.

    Raises:
        SignInError: one is there and cannot be read.
    """
    for name in ("config_file", "credentials_file"):
        if file := core.get_config_variable(name):
            _check_readable(Path(file).expanduser(), profile)


def prepare(core: botocore.session.Session, profile: str, region: str) -> None:
    """Have `core` look for its credentials as this module says. Nothing is asked of anybody yet."""
    cache: Any = SharedSessions(str(Path(CACHE).expanduser()))
    chain: Any = create_credential_resolver(core, cache=cache, region_name=region)
    role = chain.get_provider("assume-role")
    role._prompter = lambda words: _mfa_code(words, profile)
    chain.get_provider("custom-process")._popen = BoundedProcess

    def of_source(profile_name: str) -> ProcessProvider:
        config: Any = core
        return ProcessProvider(profile_name, lambda: config.full_config, popen=BoundedProcess)

    # The profile that a role starts from may name a program, too.
    role._profile_provider_builder._create_process_provider = of_source
    core.register_component("credential_provider", chain)


def look_up(core: botocore.session.Session, profile: str | None) -> Credentials | None:
    """The credentials of `core`, ready to sign; None: there are none. Asks and fetches at its first call only.

    Raises:
        SignInError: they cannot be had.
        BotoCoreError, ClientError: the same in the SDK's words.
    """
    try:
        with _ONE_LOOKS:
            found: Any = core.get_credentials()
            if found is not None:
                _check_key(*found.get_frozen_credentials())
    except (*NONSENSE, OSError) as error:
        # The SDK passes on whatever it trips over in a file, a variable or an answer.
        raise SignInError(
            f"the credentials of {profile_text(profile)} cannot be used: "
            + shortened(str(error) or type(error).__name__),
            hint=f"{with_profile('aws sts get-caller-identity', profile)} shows the same failure",
            consequence=NOTHING,
            code="no_credentials",
        ) from error
    credentials: Credentials | None = found
    return credentials


def _check_key(key: Any, secret: Any, token: Any, *_: Any) -> None:
    """See that calls can be signed with what was found: who serves it may have said anything."""
    for word in (key, secret, *([token] if token else [])):
        if not (isinstance(word, str) and word and word.isascii() and word.isprintable()):
            raise ValueError("what was found is not an access key")


def _check_readable(path: Path, profile: str | None) -> None:
    try:
        if path.is_file():
            path.open("rb").close()
        elif path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
    except OSError as error:
        raise SignInError(
            f"the AWS settings of {profile_text(profile)} cannot be read: {path}: {error.strerror}",
            hint="the file should be yours, and be readable for you",
            consequence=NOTHING,
            code="bad_aws_config",
        ) from error


def _mfa_code(words: str, profile: str) -> str:
    """The code for the SDK's question `words`, which names the device."""
    device = shortened(words.removeprefix("Enter MFA code for ").rstrip(": "), 120)
    for _ in range(CODE_TRIES):
        answer = questions.ask(f"MFA code of {device} for {profile_text(profile)} (6 digits):")
        if answer is None:
            break
        if CODE.fullmatch(answer.strip()):
            return answer.strip()
    raise SignInError(
        f"{profile_text(profile)} needs an MFA code, and none was given",
        hint=f"{with_profile('aws sts get-caller-identity', profile)} asks for it; its session works here too",
        consequence=NOTHING,
        code="mfa",
    )


class SharedSessions(JSONFileCache):
    """The AWS CLI's cache. A file that is none is passed over, and one that cannot be written is done without."""

    def __contains__(self, cache_key: str) -> bool:
        with suppress(KeyError):
            return bool(self[cache_key])
        return False

    def __getitem__(self, cache_key: str) -> dict[str, Any]:
        """The session under `cache_key`; KeyError: there is none that can be used."""
        try:
            found = super().__getitem__(cache_key)
            told = found["Credentials"]
            whole = all(isinstance(told[key], str) for key in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
            if whole and parse_timestamp(told["Expiration"]).tzinfo is not None:
                return dict(found)
        except NONSENSE:
            pass
        raise KeyError(cache_key)

    def __setitem__(self, cache_key: str, value: Any) -> None:
        with suppress(OSError):
            super().__setitem__(cache_key, value)


class BoundedProcess(subprocess.Popen[bytes]):
    """A `credential_process`: bounded in time and bytes, and what it says is looked at before the SDK does."""

    _child_created = False  # for `__del__`, where it could not be started

    def __init__(self, argv: list[str], **streams: Any) -> None:
        if not argv:
            raise _process_failed("it is empty")
        try:
            super().__init__(argv, **streams)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise _process_failed(f"{shortened(argv[0], 80)} cannot be started: {why}") from error

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What it printed, and its words about a failure, bounded.

        Raises:
            CredentialRetrievalError: it gave no answer, or one that is none.
        """
        told: dict[str, bytes] = {}

        def read(name: str, stream: IO[bytes]) -> None:
            told[name] = stream.read(PROCESS_BYTES + 1)
            if len(told[name]) > PROCESS_BYTES:
                self.kill()

        assert self.stdout is not None and self.stderr is not None
        streams = (("stdout", self.stdout), ("stderr", self.stderr))
        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams]
        ends = time.monotonic() + PROCESS_LIMIT_S
        for reader in readers:
            reader.start()
        try:
            for reader in readers:
                reader.join(max(0.0, ends - time.monotonic()))
            if any(len(piece) > PROCESS_BYTES for piece in told.values()):
                raise _process_failed(f"it printed more than {PROCESS_BYTES >> 10} kB")
            self.wait(max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise _process_failed(f"it gave no answer within {PROCESS_LIMIT_S:.0f} s") from None
        finally:
            if self.poll() is None:
                self.kill()
                self.wait()
            for reader, (_, stream) in zip(readers, streams, strict=True):
                # A program of its own that goes on may hold the other end.
                reader.join(1.0)
                if not reader.is_alive():
                    stream.close()
        out, words = told.get("stdout", b""), shortened(told.get("stderr", b"").decode("utf-8", "replace"))
        if self.returncode == 0:
            _check_answer(out)
        return out, (words or f"exit code {self.returncode}").encode()


def _check_answer(out: bytes) -> None:
    """Whether a `credential_process` gave credentials. What it printed is not quoted: it may hold a secret."""
    try:
        told = json.loads(out)
    except NONSENSE:
        told = None
    if not isinstance(told, dict):
        raise _process_failed("it printed no JSON object")
    if told.get("Version") != 1:
        raise _process_failed('its answer is not of "Version": 1')
    for key in ("AccessKeyId", "SecretAccessKey"):
        if not (isinstance(told.get(key), str) and told[key]):
            raise _process_failed(f"its answer has no {key}")
    if not isinstance(told.get("SessionToken"), str | None):
        raise _process_failed("its SessionToken is not text")
    expires = told.get("Expiration")
    if expires is None:
        return
    try:
        at = parse_timestamp(expires)
        over = at <= datetime.now(UTC)
    except NONSENSE:
        raise _process_failed("its Expiration is not a time with a zone") from None
    if over:
        raise _process_failed("what it gave has expired")


def _process_failed(why: str) -> sdk.CredentialRetrievalError:
    return sdk.CredentialRetrievalError(provider="credential_process", error_msg=why)
