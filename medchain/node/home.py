"""The folder of one hospital's node: what lies in it, how it is made, and how it is checked and opened at a start.

    node.toml  genesis.json  consensus.key  org.key  tls.key.pem  tls.cert.pem  data/ (LevelDB)  vault/  node.log  node.pid

The passphrase of the keys is never in it. The store is opened, and so locked, before anything else is touched: a second start of the same
node ends there.
"""

from __future__ import annotations

import os
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from medchain.chain import limits
from medchain.chain.genesis import Genesis, Hospital
from medchain.crypto.certificates import certificate_pem, make_certificate
from medchain.crypto.keyfile import Identity, load_identity, load_public, save_identity
from medchain.engine.engine import Engine
from medchain.errors import Malformed, Rejected
from medchain.node import config
from medchain.node.config import NodeConfig
from medchain.store.leveldb import LevelDB

CERTIFICATE_DAYS: Final = 825
"""A little over two years, the longest that careful TLS clients accept; the log warns weeks before the end."""
PEM_BYTES_MAX: Final = 16 * 1024
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n?", re.DOTALL)

REFUSALS: Final[dict[str, str]] = {
    "home.exists": "The folder already holds a node.",
    "home.incomplete": "A file of the node's folder is missing or cannot be read.",
    "home.unusable": "The folder cannot be made or written.",
    "home.not-a-member": "The genesis document does not name this node's consensus key.",
    "home.other-keys": "A key or certificate in the folder is not the one that the genesis document names.",
    "store.missing": "there is no store at this path",
    "store.locked": "another process has the store open",
}


@dataclass(frozen=True, slots=True)
class NodeHome:
    """The paths of a node's folder."""

    path: Path

    @property
    def config_file(self) -> Path:
        """Settings that differ from the defaults."""
        return self.path / config.FILE_NAME

    @property
    def genesis_file(self) -> Path:
        """The founding document of the network."""
        return self.path / "genesis.json"

    @property
    def consensus_key_file(self) -> Path:
        """Signs votes and handshakes."""
        return self.path / "consensus.key"

    @property
    def organisation_key_file(self) -> Path:
        """Signs the hospital's transactions; opens what is sealed to the hospital."""
        return self.path / "org.key"

    @property
    def tls_key_file(self) -> Path:
        """Private key of the certificate, PKCS #8, encrypted with the passphrase."""
        return self.path / "tls.key.pem"

    @property
    def tls_certificate_file(self) -> Path:
        """The certificate as PEM."""
        return self.path / "tls.cert.pem"

    @property
    def description_file(self) -> Path:
        """What the genesis document must hold of this hospital."""
        return self.path / "hospital.json"

    @property
    def data_folder(self) -> Path:
        """The store."""
        return self.path / "data"

    @property
    def vault_folder(self) -> Path:
        """Sealed blobs and wrapped keys."""
        return self.path / "vault"

    @property
    def log_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "node.log"

    @property
    def pid_file(self) -> Path:
        """Id of the running process (pidfile.py)."""
        return self.path / "node.pid"


@dataclass(frozen=True, slots=True)
class Keys:
    """The identities of a node, opened."""

    consensus: Identity
    organisation: Identity


@dataclass(frozen=True, slots=True)
class OpenedHome:
    """A checked folder with its store open (and locked) and its keys unlocked."""

    home: NodeHome
    config: NodeConfig
    genesis: Genesis
    hospital: Hospital
    keys: Keys
    store: LevelDB
    passphrase: str | None
    """Opens the TLS key; None when the key files are unprotected."""


# ---- making a folder --------------------------------------------------------------------------------------------------------


def make_folder(home: NodeHome) -> None:
    """Make an empty folder, mode 0700. Raises Rejected: home.exists when a node is in it, home.unusable."""
    if any(file.exists() for file in made_files(home)):
        raise Rejected("home.exists", f"{home.path} already holds a node: choose another folder.")
    with _usable(home.path):
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)


def made_files(home: NodeHome) -> tuple[Path, ...]:
    """Return the files that making a node writes before there is a genesis document."""
    keys = (home.consensus_key_file, home.organisation_key_file, home.tls_key_file, home.tls_certificate_file)
    return (home.config_file, *keys, home.description_file)


def make_identities() -> Keys:
    """Return fresh identities of a hospital."""
    return Keys(Identity.generate("hospital"), Identity.generate("hospital"))


def make_tls(name: str, hosts: Sequence[str], passphrase: str | None, now: datetime) -> tuple[bytes, bytes]:
    """Return (private key as PEM, encrypted when there is a passphrase; certificate as DER). Raises Malformed for unusable hosts."""
    secret = passphrase.encode() if passphrase is not None else None
    return make_certificate(name, hosts, valid_days=CERTIFICATE_DAYS, now=now, passphrase=secret)


def save_keys(home: NodeHome, keys: Keys, tls: tuple[bytes, bytes], passphrase: str | None) -> None:
    """Write the key files and the certificate. Raises Rejected: keyfile.*, home.unusable."""
    key_pem, certificate = tls
    save_identity(home.consensus_key_file, keys.consensus, passphrase)
    save_identity(home.organisation_key_file, keys.organisation, passphrase)
    write_file(home.tls_key_file, key_pem, mode=0o600)
    write_file(home.tls_certificate_file, certificate_pem(certificate))


def save_config(home: NodeHome, values: Mapping[tuple[str, str], str | int]) -> None:
    """Write node.toml with the settings that differ from the defaults. Raises Rejected: config.*, home.unusable."""
    write_file(home.config_file, config.render(values).encode())


def found_store(home: NodeHome, genesis: Genesis) -> None:
    """Write genesis.json and the store's founding content: from then on the store is intact at height 0.

    Raises Rejected: home.exists when a store is there already, home.unusable, store.*.
    """
    if home.data_folder.exists():
        raise Rejected("home.exists", f"{home.data_folder} already holds a store: it is never overwritten; move it away first.")
    write_file(home.genesis_file, genesis.to_json().encode())
    store = LevelDB(home.data_folder, create=True)
    try:
        store.write(Engine.founding_batch(genesis))
    finally:
        store.close()


def describe(hospital: Hospital) -> dict[str, Any]:
    """Return a hospital as its object in the genesis document, for JSON."""
    described: dict[str, Any] = {field.name: getattr(hospital, field.name) for field in fields(hospital)}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in described.items()}


def own_row(home: NodeHome, name: str, role: str, officer_key: bytes, endpoints: Sequence[str]) -> Hospital:
    """Return what the genesis document will say of this node, from the public parts of its files."""
    consensus, organisation = load_public(home.consensus_key_file), load_public(home.organisation_key_file)
    return Hospital(
        name=name,
        role=role,
        consensus_key=consensus.public,
        officer_key=officer_key,
        organisation_key=organisation.public,
        opening_suite=organisation.opening_suite,
        opening_key=organisation.opening_public,
        certificate=_load_certificate(home.tls_certificate_file),
        endpoints=tuple(endpoints),
    )


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all: under another name, synced, then renamed. Raises Rejected home.unusable."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _usable(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Rejected("home.unusable", f"{path} cannot be written ({error.strerror}): check its owner, rights and free space.") from None


# ---- opening a folder -------------------------------------------------------------------------------------------------------


def open_home(home: NodeHome, passphrase: Callable[[], str], *, may_be_empty: bool = False) -> OpenedHome:
    """Check the folder, lock its store, unlock its keys; `passphrase` is asked for only when the key files are protected.

    `may_be_empty` begins with an empty store when there is none: for a hospital whose disk was lost; it votes once the others have
    confirmed what it signed before (protocol.md, "Amnesia"). Raises Rejected (config.*, store.*, home.*, keyfile.*) and Malformed.
    """
    settings = NodeConfig.load(home.path)
    if not home.genesis_file.exists() and not home.data_folder.exists():
        raise Rejected("home.incomplete", f"{home.path} is not founded yet: run `medchain node init --home {home.path} --genesis FILE`.")
    store = _open_store(home, may_be_empty)
    try:
        genesis = load_genesis(home.genesis_file)
        hospital = check_membership(home, genesis)
        keys, secret = _open_keys(home, passphrase)
        return OpenedHome(home, settings, genesis, hospital, keys, store, secret)
    except BaseException:
        store.close()
        raise


def load_genesis(path: Path) -> Genesis:
    """Return the genesis document in the file. Raises Rejected home.incomplete, Malformed with the file's name."""
    try:
        with path.open("rb") as file:
            text = file.read(limits.GENESIS_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected("home.incomplete", f"The genesis document {path} cannot be read: {error.strerror}.") from None
    try:
        return Genesis.from_json(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise Malformed(f"{path}: the genesis document is not UTF-8 text: get a fresh copy from a member of the network") from None
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}") from None


def _open_store(home: NodeHome, may_be_empty: bool) -> LevelDB:
    try:
        return LevelDB(home.data_folder, create=may_be_empty)
    except Rejected as refusal:
        if refusal.code != "store.missing":
            raise
        raise Rejected(
            "store.missing",
            f"There is no store in {home.data_folder}: mount the disk it is on, or, when it is lost, start once with --empty-store; the "
            "node then catches up from the others and votes once they have confirmed what it signed before.",
        ) from None


def check_membership(home: NodeHome, genesis: Genesis) -> Hospital:
    """Return the hospital of this folder's keys as `genesis` names it, from their public parts.

    Raises Rejected: home.not-a-member, home.other-keys, home.incomplete, keyfile.*; Malformed.
    """
    consensus, organisation = load_public(home.consensus_key_file), load_public(home.organisation_key_file)
    hospital = next((hospital for hospital in genesis.hospitals if hospital.consensus_key == consensus.public), None)
    if hospital is None:
        raise Rejected(
            "home.not-a-member",
            f"The consensus key in {home.consensus_key_file} is not in the genesis document: put the right document or key file there.",
        )
    if _load_certificate(home.tls_certificate_file) != hospital.certificate:
        raise _other_keys(home.tls_certificate_file)
    opening = (organisation.opening_suite, organisation.opening_public)
    if organisation.public != hospital.organisation_key or opening != (hospital.opening_suite, hospital.opening_key):
        raise _other_keys(home.organisation_key_file)
    return hospital


def _open_keys(home: NodeHome, passphrase: Callable[[], str]) -> tuple[Keys, str | None]:
    """Unlock both key files side by side: each costs a tenth of a second of scrypt, outside the interpreter lock."""
    files = (home.consensus_key_file, home.organisation_key_file)
    secret: str | None = None
    try:
        return Keys(*(load_identity(file, None) for file in files)), None
    except Rejected as refusal:
        if refusal.code != "keyfile.locked":
            raise
        secret = passphrase()
    with ThreadPoolExecutor(2) as threads:
        return Keys(*threads.map(lambda file: load_identity(file, secret), files)), secret


def _load_certificate(path: Path) -> bytes:
    """Return the DER bytes of the one certificate in a PEM file."""
    try:
        text = path.read_bytes()[:PEM_BYTES_MAX].decode("ascii", "replace")
    except OSError as error:
        raise Rejected("home.incomplete", f"The certificate {path} cannot be read: {error.strerror}.") from None
    found = _CERTIFICATE.findall(text)
    if len(found) != 1:
        raise Malformed(f"{path} must hold exactly one certificate as PEM: restore it from a backup")
    try:
        return ssl.PEM_cert_to_DER_cert(found[0])
    except ValueError:
        raise Malformed(f"{path} is damaged: restore it from a backup") from None


def _other_keys(path: Path) -> Rejected:
    return Rejected("home.other-keys", f"{path} is not the one that the genesis document names for this hospital: restore the right file.")
