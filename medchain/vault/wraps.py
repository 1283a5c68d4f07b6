"""Keys at rest: epoch keys sealed to the custodian's own opening key, data keys wrapped under their epoch key. Nothing lies here plain.

Whoever has this folder, and every other hospital's, but no unlocked key file, opens nothing (ledger.md, "Sealing and sharing", 3). A wrap
is found by the digest that the chain anchors, so an attempt that never reached the chain cannot stand in the way of the one that did. This
module knows no rule about who may have a key, and logs nothing. Its functions block on the disk: call them from a worker thread.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.crypto.hashing import hkdf_sha256, tagged_digest
from medchain.crypto.sealing import KEY_BYTES, WRAPPED_KEY_BYTES, OpeningKey, seal, unwrap_key, wrap_key
from medchain.errors import InvariantBroken, Malformed
from medchain.vault.files import disk_errors, make_folder, overwrite_and_remove, remove_leftovers, sync_folder, write_whole

FORMAT: Final = 1
FILE_BYTES_MAX: Final = 8 * 1024
"""A sealed epoch key of the hybrid suite takes about 1.3 kB."""
NUMBER_MAX: Final = 2**32 - 1
"""Epochs and versions are counted in 32 bits (ledger/payload.py)."""


@dataclass(frozen=True, slots=True, repr=False)
class EpochKey:
    """The key of one epoch of (patient, category) at this custodian. Its text form shows no key."""

    pseudonym: bytes
    category: str
    number: int
    key: bytes

    def check_value(self, network: Domain) -> bytes:
        """Return the 32 bytes that go on chain: whoever holds the key recognises it, nobody learns anything of it (HKDF)."""
        info = codec.encode(["medchain/epoch-check", network.genesis, self.pseudonym, self.category, self.number])
        return hkdf_sha256(self.key, salt=network.genesis, info=info, length_bytes=32)

    def is_of(self, network: Domain, check_value: bytes) -> bool:
        """Answer whether the chain's check value is that of this key."""
        return hmac.compare_digest(self.check_value(network), check_value)

    def __repr__(self) -> str:
        return f"EpochKey(number={self.number})"


@dataclass(frozen=True, slots=True)
class Wrap:
    """A version's data key under the key of an epoch: 40 bytes that say nothing without it."""

    record: bytes
    version: int
    epoch: int
    wrapped: bytes

    def digest(self, network: Domain) -> bytes:
        """Return the wrap digest that the chain anchors. No salt is needed: the wrapped key is as random as a salt."""
        return tagged_digest("medchain/wrap", codec.encode([network.genesis, self.record, self.version, self.epoch, self.wrapped]))


class WrapStore:
    """Epoch keys and wraps in one folder; every file is durable before the call that wrote it returns."""

    def __init__(self, directory: Path, opening: OpeningKey, network: Domain) -> None:
        """`opening` is the organisation's opening key, unlocked; `network` binds every file to one genesis document."""
        self._opening = opening
        self._network = network
        self._epochs = directory / "epochs"
        self._wraps = directory / "keys"
        self._beside = directory / "new"
        self._lock = threading.Lock()
        with disk_errors("opening the store of wrapped keys"):
            for folder in (directory, self._epochs, self._wraps, self._beside):
                make_folder(folder)
            remove_leftovers(self._beside)

    # ---- epoch keys ----------------------------------------------------------------------------------------------------------

    def epoch_key(self, pseudonym: bytes, category: str, number: int) -> EpochKey | None:
        """Return an epoch's key, None when this hospital has none.

        Raises Malformed when the file is damaged, is another epoch's, or was sealed to another opening key.
        """
        path = self._epoch_path(pseudonym, category, number)
        content = _read(path)
        if content is None:
            return None
        form, its_pseudonym, its_category, its_number, sealed = codec.as_fields(
            codec.decode(content, bytes_max=FILE_BYTES_MAX, depth_max=1), 5, "a stored epoch key"
        )
        if (form, its_pseudonym, its_category, its_number) != (FORMAT, pseudonym, category, number) or type(sealed) is not bytes:
            raise Malformed("a stored epoch key is another epoch's: restore the vault's folder from a backup")
        key = self._opening.open(sealed, info=self._epoch_info(pseudonym, category, number))
        if len(key) != KEY_BYTES:
            raise Malformed("a stored epoch key has another length: restore the vault's folder from a backup")
        return EpochKey(pseudonym, category, number, key)

    def make_epoch_key(self, pseudonym: bytes, category: str, number: int) -> EpochKey:
        """Return the key of an epoch that is about to be opened: the one of an attempt before, or a fresh one, durable.

        Raises Malformed as `epoch_key` does, Unavailable and Rejected vault.disk-low when it cannot be written.
        """
        with self._lock:
            present = self.epoch_key(pseudonym, category, number)
            if present is not None:
                return present
            fresh = EpochKey(pseudonym, category, number, secrets.token_bytes(KEY_BYTES))
            sealed = seal(
                self._opening.suite, self._opening.public, fresh.key, info=self._epoch_info(pseudonym, category, number)
            )
            with disk_errors("writing an epoch key"):
                write_whole(
                    self._epoch_path(pseudonym, category, number), codec.encode([FORMAT, pseudonym, category, number, sealed]), self._beside
                )
            return fresh

    def shred_epoch_key(self, pseudonym: bytes, category: str, number: int) -> None:
        """Destroy an epoch's key: nothing under it opens again."""
        with self._lock, disk_errors("shredding an epoch key"):
            overwrite_and_remove(self._epoch_path(pseudonym, category, number))

    # ---- wraps ---------------------------------------------------------------------------------------------------------------

    def put_wrap(self, epoch: EpochKey, record: bytes, version: int, data_key: bytes) -> bytes:
        """Wrap a data key under an epoch, store it, return the wrap digest; it is durable then. Storing it twice changes nothing.

        Raises Unavailable and Rejected vault.disk-low when it cannot be written.
        """
        wrap = Wrap(record, version, epoch.number, wrap_key(epoch.key, data_key))
        digest = wrap.digest(self._network)
        path = self._wrap_path(record, version, digest)
        with self._lock, disk_errors("writing a wrapped key"):
            if not path.exists():
                make_folder(path.parent)
                sync_folder(self._wraps)
                write_whole(path, codec.encode([FORMAT, record, version, wrap.epoch, wrap.wrapped]), self._beside)
        return digest

    def wrap(self, record: bytes, version: int, digest: bytes) -> Wrap | None:
        """Return the wrap under the digest that the chain anchors, None when it is not here. Raises Malformed when it is damaged."""
        content = _read(self._wrap_path(record, version, digest))
        if content is None:
            return None
        fields = codec.as_fields(codec.decode(content, bytes_max=FILE_BYTES_MAX, depth_max=1), 5, "a stored wrap")
        wrap = Wrap(
            codec.as_bytes(fields[1], "record", length=limits.DIGEST_BYTES),
            codec.as_uint(fields[2], "version", NUMBER_MAX),
            codec.as_uint(fields[3], "epoch", NUMBER_MAX),
            codec.as_bytes(fields[4], "wrapped key", length=WRAPPED_KEY_BYTES),
        )
        if fields[0] != FORMAT or (wrap.record, wrap.version) != (record, version) or wrap.digest(self._network) != digest:
            raise Malformed("a stored wrap is not the one that the chain anchors: restore the vault's folder from a backup")
        return wrap

    def data_key(self, epoch: EpochKey, wrap: Wrap) -> bytes:
        """Return the data key inside a wrap. Raises Malformed when it was made under another key."""
        if wrap.epoch != epoch.number:
            raise InvariantBroken("a wrap is opened with the key of another epoch")
        return unwrap_key(epoch.key, wrap.wrapped)

    def shred_record(self, record: bytes) -> int:
        """Destroy all wraps of a record; return how many there were. Without them no version of it opens again."""
        folder = self._wraps / _name(record)
        if not folder.is_dir():
            return 0
        with self._lock, disk_errors("shredding wrapped keys"):
            paths = sorted(folder.iterdir())
            for path in paths:
                overwrite_and_remove(path)
        return len(paths)

    # ---- where -----------------------------------------------------------------------------------------------------------------

    def _epoch_path(self, pseudonym: bytes, category: str, number: int) -> Path:
        """The name is a digest: no text from outside becomes part of a path, and the folder's listing names no patient."""
        return self._epochs / tagged_digest("medchain/epoch-file", codec.encode([pseudonym, category, number])).hex()

    def _wrap_path(self, record: bytes, version: int, digest: bytes) -> Path:
        if type(version) is not int or not 0 <= version <= NUMBER_MAX:
            raise InvariantBroken("a version is counted in 32 bits")
        return self._wraps / _name(record) / f"{version}-{_name(digest)}"

    def _epoch_info(self, pseudonym: bytes, category: str, number: int) -> bytes:
        return codec.encode(["medchain/epoch-key", self._network.genesis, pseudonym, category, number])


def _name(digest: bytes) -> str:
    if type(digest) is not bytes or len(digest) != limits.DIGEST_BYTES:
        raise InvariantBroken("a file of the vault is named by 32 bytes")
    return digest.hex()


def _read(path: Path) -> bytes | None:
    """Return the content of a small file, None when it is not there."""
    with disk_errors("reading a stored key"):
        try:
            with path.open("rb") as file:
                return file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
