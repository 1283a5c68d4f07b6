"""Identities on disk: a signing key and an opening key in one file, sealed under a passphrase or guarded by file permissions alone.

The file is JSON text that a person can recognise: role and public keys are readable, the secret part is one hexadecimal string. With a
passphrase it is AES-256-GCM under scrypt (RFC 7914), with the public part as associated data, so nobody can put another role or key in
front of a secret. This module knows no chain: what a role may do is decided above.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medchain import codec
from medchain.crypto.sealing import PRIVATE_KEY_BYTES, SUITE_HYBRID, OpeningKey, check_public_key
from medchain.crypto.signing import PUBLIC_KEY_BYTES, SEED_BYTES, SigningKey
from medchain.errors import Malformed, Rejected

REFUSALS: Final[dict[str, str]] = {
    "keyfile.exists": "There is a file of this name already; a key file is never overwritten.",
    "keyfile.unwritable": "The key file cannot be written there.",
    "keyfile.unreadable": "The key file is not there or cannot be read.",
    "keyfile.permissions": "Others may read or change the key file.",
    "keyfile.locked": "The key file needs a passphrase and none was given.",
    "keyfile.wrong-passphrase": "The passphrase does not open the key file.",
    "keyfile.empty-passphrase": "The passphrase is empty and would protect nothing.",
}

VERSION: Final = 1
ROLES: Final = ("hospital", "officer", "clinician", "patient", "client")
FILE_BYTES_MAX: Final = 16 * 1024
"""A key file of the hybrid suite takes about 3 kB."""

UNPROTECTED: Final = "none"
PROTECTED: Final = "scrypt-aes-256-gcm"
SCRYPT_N: Final = 2**15
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
"""N, r and p of new files: 32 MiB and about 0.1 s a guess."""
SCRYPT_N_MIN: Final = 2**14
SCRYPT_N_MAX: Final = 2**18
SCRYPT_R_MAX: Final = 16
SCRYPT_P_MAX: Final = 4
SCRYPT_MEMORY_BYTES_MAX: Final = 256 * 1024**2
"""Bounds of what a file may ask for, so that a damaged one cannot eat the machine: 256 MiB, a few seconds."""
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """What everyone may know of an identity."""

    role: str
    """One of ROLES."""
    public: bytes
    """Ed25519 public key."""
    opening_suite: int
    """Sealing suite of the opening key."""
    opening_public: bytes
    """Public key to seal to."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A role with its signing and opening keys. Its text form shows public parts only."""

    role: str
    signing: SigningKey
    opening: OpeningKey

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise Malformed(f"a role is one of: {', '.join(ROLES)}")

    @classmethod
    def generate(cls, role: str, suite: int = SUITE_HYBRID) -> Identity:
        """Return an identity with fresh keys from the system's randomness. Raises Malformed for an unknown role or suite."""
        return cls(role, SigningKey.generate(), OpeningKey.generate(suite))

    def public_identity(self) -> PublicIdentity:
        """Return the part that everyone may know."""
        return PublicIdentity(self.role, self.signing.public, self.opening.suite, self.opening.public)


def save_identity(path: str | os.PathLike[str], identity: Identity, passphrase: str | None) -> None:
    """Write a new key file, mode 0600; it is there whole and on disk when this returns, or not at all.

    Without a passphrase the secret is plain: only for a machine whose disk and backups are guarded otherwise. There is no second copy of
    the keys, and no way around a forgotten passphrase. Raises Rejected: keyfile.exists, keyfile.empty-passphrase, keyfile.unwritable.
    """
    public = identity.public_identity()
    secret = codec.encode([identity.signing.seed_bytes(), identity.opening.private_bytes()])
    document = {
        "medchain_key": VERSION,
        "role": public.role,
        "public": public.public.hex(),
        "opening_suite": public.opening_suite,
        "opening_public": public.opening_public.hex(),
        "secret": _protect(public, secret, passphrase),
    }
    _write_new(Path(path), (json.dumps(document, indent=2) + "\n").encode())


def load_identity(path: str | os.PathLike[str], passphrase: str | None) -> Identity:
    """Return the identity of a key file; a passphrase given for an unprotected file is not used.

    Raises Rejected: keyfile.unreadable, keyfile.permissions (any right for group or others), keyfile.locked, keyfile.wrong-passphrase
    (also when the protected part was altered: the two cannot be told apart); Malformed when the content is damaged.
    """
    public, protection = _parse(_read(Path(path), private=True))
    secret = _unprotect(public, protection, passphrase)
    seed, private = codec.as_fields(codec.decode(secret, bytes_max=FILE_BYTES_MAX, depth_max=1), 2, "the secret part of the key file")
    identity = Identity(
        public.role,
        SigningKey(codec.as_bytes(seed, "the seed in the key file", length=SEED_BYTES)),
        OpeningKey.from_private_bytes(
            public.opening_suite, codec.as_bytes(private, "the opening key in the key file", length=PRIVATE_KEY_BYTES)
        ),
    )
    if identity.public_identity() != public:
        raise Malformed("the public keys in the key file are not those of its secret part; restore the file from a backup")
    return identity


def load_public(path: str | os.PathLike[str]) -> PublicIdentity:
    """Return the public part of a key file, without a passphrase and whatever the file's permissions.

    Misuse: nothing vouches for the public part until the file is opened with `load_identity`; whoever could write the file could have
    changed it. Raises Rejected (keyfile.unreadable) or Malformed.
    """
    public, _ = _parse(_read(Path(path), private=False))
    return public


def _associated(public: PublicIdentity, protection: list[Any]) -> bytes:
    """Everything readable in the file, so that changing any of it makes the secret part not open."""
    return codec.encode([VERSION, public.role, public.public, public.opening_suite, public.opening_public, protection])


def _derive(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    # NFC: the same letters typed on two keyboards can be two strings (RFC 8265, section 4.2).
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    memory_bytes = 128 * r * (n + p) + 1024 * 1024  # what OpenSSL takes, and some to spare
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=memory_bytes, dklen=32)


def _protect(public: PublicIdentity, secret: bytes, passphrase: str | None) -> dict[str, Any]:
    if passphrase is None:
        return {"protection": UNPROTECTED, "data": secret.hex()}
    if not passphrase:
        raise Rejected("keyfile.empty-passphrase", "the passphrase is empty; give a longer one, or none at all")
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    associated = _associated(public, [PROTECTED, SCRYPT_N, SCRYPT_R, SCRYPT_P, salt, nonce])
    sealed = AESGCM(_derive(passphrase, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)).encrypt(nonce, secret, associated)
    numbers = {"n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P}
    return {"protection": PROTECTED, **numbers, "salt": salt.hex(), "nonce": nonce.hex(), "data": sealed.hex()}


def _unprotect(public: PublicIdentity, protection: dict[str, Any], passphrase: str | None) -> bytes:
    if protection["protection"] == UNPROTECTED:
        data: bytes = protection["data"]
        return data
    if passphrase is None:
        raise Rejected("keyfile.locked", "the key file is protected; give its passphrase")
    n, r, p, salt, nonce = (protection[name] for name in ("n", "r", "p", "salt", "nonce"))
    associated = _associated(public, [PROTECTED, n, r, p, salt, nonce])
    try:
        return AESGCM(_derive(passphrase, salt, n, r, p)).decrypt(nonce, protection["data"], associated)
    except InvalidTag:
        raise Rejected(
            "keyfile.wrong-passphrase", "the passphrase does not open the key file, or the file was altered; try again"
        ) from None


def _parse(data: bytes) -> tuple[PublicIdentity, dict[str, Any]]:
    """Take the JSON text apart; every field that is there is checked, and none beyond them is allowed. Raises Malformed."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise Malformed("the key file is not JSON text; restore it from a backup") from None
    fields = ("medchain_key", "role", "public", "opening_suite", "opening_public", "secret")
    version, role, public, suite, opening_public, secret = _take(document, fields)
    if type(version) is not int or version != VERSION:
        raise Malformed(f"the key file has a version that is not known; this program knows {VERSION}")
    if role not in ROLES:
        raise Malformed(f"the role in the key file is not one of: {', '.join(ROLES)}")
    identity = PublicIdentity(role, _hex(public, PUBLIC_KEY_BYTES), codec.as_uint(suite, "the opening suite"), _hex(opening_public))
    check_public_key(identity.opening_suite, identity.opening_public)
    kind = secret.get("protection") if type(secret) is dict else None
    if kind == UNPROTECTED:
        _, content = _take(secret, ("protection", "data"))
        return identity, {"protection": UNPROTECTED, "data": _hex(content)}
    if kind != PROTECTED:
        raise Malformed("the key file is protected in a way that is not known")
    _, n, r, p, salt, nonce, content = _take(secret, ("protection", "n", "r", "p", "salt", "nonce", "data"))
    _check_scrypt(n, r, p)
    salts = {"salt": _hex(salt, SALT_BYTES), "nonce": _hex(nonce, NONCE_BYTES)}
    return identity, {"protection": PROTECTED, "n": n, "r": r, "p": p, **salts, "data": _hex(content)}


def _check_scrypt(n: Any, r: Any, p: Any) -> None:
    for value in (n, r, p):
        codec.as_uint(value, "a scrypt parameter in the key file")
    if not SCRYPT_N_MIN <= n <= SCRYPT_N_MAX or n & (n - 1) or not 1 <= r <= SCRYPT_R_MAX or not 1 <= p <= SCRYPT_P_MAX:
        raise Malformed("the scrypt parameters in the key file are out of bounds")
    if 128 * n * r > SCRYPT_MEMORY_BYTES_MAX:
        raise Malformed("the scrypt parameters in the key file ask for too much memory")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice, of which JSON readers take the first or the last as they like."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _take(value: Any, names: tuple[str, ...]) -> list[Any]:
    """Return the values of exactly these names."""
    if type(value) is not dict or sorted(value) != sorted(names):
        raise Malformed("the key file has a field too many or too few; restore it from a backup")
    return [value[name] for name in names]


def _hex(value: Any, length: int | None = None) -> bytes:
    """Read lower case hexadecimal text, the only form that is written."""
    try:
        data = bytes.fromhex(value)
    except (TypeError, ValueError):
        raise Malformed("a field of the key file is not hexadecimal text") from None
    if data.hex() != value or (length is not None and len(data) != length):
        raise Malformed("a field of the key file has another form or length than it must have")
    return data


def _read(path: Path, *, private: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of this name would block for ever
    except OSError as error:
        raise Rejected("keyfile.unreadable", f"the key file {path} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("keyfile.unreadable", f"{path} is not a file; give the path of a key file")
        if private and status.st_mode & 0o077:
            raise Rejected("keyfile.permissions", f"others have rights on the key file {path}; run chmod 600 on it, and ask who read it")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected("keyfile.unreadable", f"the key file {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > FILE_BYTES_MAX:
        raise Malformed(f"a key file is at most {FILE_BYTES_MAX} bytes long")
    return data


def _write_new(path: Path, data: bytes) -> None:
    """Write beside the path, sync, then link into place: a link never replaces a file, and shows the whole content or nothing."""
    if not path.name or "\0" in str(path):
        raise Rejected("keyfile.unwritable", f"{str(path)!r} is no name of a file: give the new key file one")
    temporary = path.with_name(f".{secrets.token_hex(8)}.new")
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(descriptor, 0o600)  # whatever the umask
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.link(temporary, path, follow_symlinks=False)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise Rejected("keyfile.exists", f"{path} exists already; choose another name, a key file is never overwritten") from None
    except OSError as error:
        raise Rejected("keyfile.unwritable", f"the key file {path} cannot be written: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    """Make the new name durable as well as the content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
