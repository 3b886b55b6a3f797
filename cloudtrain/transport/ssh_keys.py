"""SSH keys and fingerprints. Keys are made and read by `cryptography`; nothing here opens a connection."""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

from cloudtrain.core import questions
from cloudtrain.core.disk import private_dir, sync_folder
from cloudtrain.core.errors import UsageError

PublicKey = str
"""A public key as OpenSSH writes it, without a comment: `ssh-ed25519 AAAA...`."""

AGENT = "SSH_AUTH_SOCK"
"""The SSH agent that runs, by the variable that names its socket."""

_TRIES = 3
_OPENED: dict[Path, SSHPrivateKeyTypes] = {}  # so that a passphrase is asked for once in a command
_BEGIN = re.compile(rb"^-----BEGIN (?!OPENSSH)[A-Z ]*PRIVATE KEY-----", re.MULTILINE)
_OPENSSH = b"-----BEGIN OPENSSH"
_PUBLIC = (b"ssh-", b"ecdsa-", b"sk-")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Keys:
    """By which keys somebody logs in.

    Attributes:
        files: private keys, or the public halves of keys that the agent holds.
        agent: socket of an agent, or `AGENT`; None: none is asked.
        only: of the agent's keys only those that `files` names.
    """

    files: tuple[Path, ...]
    agent: str | None = None
    only: bool = True


def new_key(path: Path) -> PublicKey:
    """Make an ed25519 key pair: private half at `path` (OpenSSH format, mode 0600, folder 0700); returns the public.

    It is on the disk when this returns, so a machine that trusts the key can be launched. A crash in between can leave
    a torn file, which no machine trusts yet: `public_key` refuses it.

    Raises:
        FileExistsError: something is there already; a key is never replaced.
        OSError: the folder cannot be written.
    """
    key = ed25519.Ed25519PrivateKey.generate()
    text = written(key)
    private_dir(path.parent)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return _openssh(key)


def written(key: SSHPrivateKeyTypes) -> bytes:
    """A private key as a file in OpenSSH format has it, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def private_key(path: Path, *, asks: bool = True) -> SSHPrivateKeyTypes:
    """The private key at `path`, in OpenSSH or PEM format; as for OpenSSH, text may stand before one in PEM.

    Args:
        asks: the user may be asked for its passphrase.

    Raises:
        UsageError: there is no such file, it is not a private key, or a passphrase protects it that nobody gives.
    """
    if path in _OPENED:
        return _OPENED[path]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the identity file {path}: {error.strerror or error}",
            hint="name the private key that the machine trusts: --identity FILE",
            code="bad_identity",
        ) from error
    if data.startswith(_PUBLIC):
        raise UsageError(
            f"{path} is the public half of a key",
            hint=f"--identity {path.with_suffix('')}" if path.suffix == ".pub" else "name the file without .pub",
            code="bad_identity",
        )
    if not data.startswith(_OPENSSH):
        data = data.removeprefix(codecs.BOM_UTF8)
        found = _BEGIN.search(data)
        data = data[found.start() :] if found else b""
    key, protected = _loaded(data, None)
    for _ in range(_TRIES if key is None and protected and asks else 0):
        answer = questions.ask(f"Passphrase of {path}:", hidden=True)
        if answer is None:
            break
        key, _ = _loaded(data, answer.rstrip("\r\n").encode())
        if key is not None:
            _OPENED[path] = key
            break
    if key is not None:
        return key
    if protected:
        raise UsageError(
            f"a passphrase protects the identity file {path}, and none was given that opens it",
            hint=f"ssh-add {path} lets your SSH agent hold the key",
            code="identity_protected",
        )
    raise UsageError(
        f"{path} is not a private key that can be used",
        hint="its lines must not be indented; a new one is made with: ssh-keygen -t ed25519",
        code="bad_identity",
    )


def _loaded(data: bytes, passphrase: bytes | None) -> tuple[SSHPrivateKeyTypes | None, bool]:
    """The key in `data`, and whether it is one that needs another passphrase, or needs one at all."""
    protected = False
    for load in (serialization.load_ssh_private_key, serialization.load_pem_private_key):
        try:
            key = load(data, password=passphrase)
        except TypeError:
            protected = True
        except ValueError as error:
            protected = protected or "assword" in str(error) or "ncrypted" in str(error)
        except Exception:  # UnsupportedAlgorithm, or OpenSSL's own errors on damaged text: the next format may fit
            continue
        else:
            if isinstance(key, (ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
                return key, False
    return None, protected


def public_blob(path: Path) -> bytes | None:
    """The public half of the key at `path`, in SSH wire format, without its passphrase; None where that tells nothing.

    As for OpenSSH it stands in the file, which may be the public half alone, or beside it in one that ends in .pub.
    """
    for file in (path, path.with_name(f"{path.name}.pub")):
        try:
            data = file.read_bytes()
            if data.startswith(_PUBLIC):
                return parse_public_key(data.decode("utf-8", "replace").splitlines()[0])[1]
            if data.startswith(_OPENSSH):
                rest = base64.b64decode(b"".join(data.split(b"-----")[2].split())).removeprefix(b"openssh-key-v1\0")
                for _ in range(3):  # the names of its cipher, its key derivation, and the options of that
                    rest = rest[4 + int.from_bytes(rest[:4], "big") :]
                return rest[8 : 8 + int.from_bytes(rest[4:8], "big")]
        except (OSError, UsageError, ValueError, IndexError):
            continue
    try:
        return parse_public_key(_openssh(private_key(path, asks=False)))[1]
    except UsageError:
        return None


def public_key(path: Path) -> PublicKey:
    """The public half of the private key at `path`.

    Raises:
        UsageError: as `private_key`.
    """
    return _openssh(private_key(path))


def _openssh(key: SSHPrivateKeyTypes) -> PublicKey:
    public = key.public_key()
    text = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return text.decode("ascii")


def parse_public_key(text: str) -> tuple[str, bytes]:
    """The type (`ssh-ed25519`) and the key itself of one line as OpenSSH writes it; a comment is ignored.

    Raises:
        UsageError: it is no such line.
    """
    kind, _, rest = text.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0].strip().encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        blob = b""
    length = int.from_bytes(blob[:4], "big")
    if not kind or len(blob) <= 4 or blob[4 : 4 + length] != kind.encode("ascii", "replace"):
        raise UsageError(f"not a public key: {text[:40]!r}", code="bad_public_key")
    return kind, blob


def fingerprint(key: PublicKey) -> str:
    """What `ssh-keygen -lf` shows of a public key: `SHA256:` and 43 characters.

    Raises:
        UsageError: it is not a public key.
    """
    return digest(parse_public_key(key)[1])


def digest(blob: bytes) -> str:
    """The fingerprint of a key in SSH wire format."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def check_fingerprint(text: str) -> str:
    """`text` as a SHA256 fingerprint.

    Raises:
        UsageError: it is none; MD5 fingerprints are refused.
    """
    plain = text.strip().rstrip("=")
    if not _FINGERPRINT.fullmatch(plain):
        raise UsageError(
            f"not a host key fingerprint: {text[:60]!r}",
            hint="on the machine: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub shows SHA256:...",
            code="bad_fingerprint",
        )
    return plain
