"""Files of the person who stores or reads: their kind, scratch space for ciphertext, an output that appears whole or not at all.

Scratch files have no name where the system allows it, so that even a killed process leaves neither ciphertext nor plaintext behind.
Knows no node and no key.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from medchain.errors import Rejected

FHIR_BUNDLE: Final = "fhir-bundle"
PLAIN_FILE: Final = "file"
FHIR_BYTES_MAX: Final = 32 * 1024 * 1024
"""A document is read whole to be checked; the largest bundles of real histories have about 20 MB."""
_NAMELESS: Final[int | None] = getattr(os, "O_TMPFILE", None)


def kind_of_file(path: Path) -> str:
    """Return the kind code a file has by its name: JSON is taken for FHIR, everything else is a plain file."""
    return FHIR_BUNDLE if path.suffix.lower() == ".json" else PLAIN_FILE


def check_fhir(path: Path) -> None:
    """Raise Rejected unless the file is a JSON object with a resourceType (FHIR R4, "JSON Representation"); nothing else is looked at."""
    try:
        if path.stat().st_size > FHIR_BYTES_MAX:
            raise Rejected(
                "client.fhir-too-large", f"a FHIR document has at most {FHIR_BYTES_MAX} bytes here: store it with kind {PLAIN_FILE}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("resourceType"), str) or not document["resourceType"]:
        raise Rejected(
            "client.not-fhir", f"{path.name} is not a FHIR document (a JSON object with a resourceType): store it with kind {PLAIN_FILE}"
        )


def size_of(path: Path) -> int:
    """Return the length of an ordinary file that can be read. Raises Rejected `client.unreadable-file`."""
    try:
        if not path.is_file():
            raise Rejected("client.unreadable-file", f"{path.name} is not a file: check the path")
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> Rejected:
    """Return the refusal for a file that cannot be read."""
    return Rejected("client.unreadable-file", f"{path.name} cannot be read ({error.strerror}): check the path and its permissions")


@contextmanager
def scratch_file(folder: Path) -> Iterator[BinaryIO]:
    """Give a file for ciphertext on the disk of `folder`, gone when the block ends or the process dies. Raises Rejected."""
    try:
        scratch = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
    except OSError as error:
        raise unwritable(folder, error) from None
    with scratch:
        yield scratch


def scratch_folder(beside: Path) -> Path:
    """Return the folder of a file when it can be written to, else the system's folder for temporary files."""
    folder = beside.resolve().parent
    return folder if os.access(folder, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def check_output(path: Path) -> None:
    """Raise Rejected when a file of this name is there, or its folder is not: better before a key was released than after."""
    if os.path.lexists(path):
        raise Rejected("client.output-exists", f"{path.name} is there already: choose another name or move it away")
    if not path.absolute().parent.is_dir():
        raise Rejected("client.output-unwritable", f"there is no folder for {path.name}: make it first")


def unwritable(path: Path, error: OSError) -> Rejected:
    """Return the refusal for a file that cannot be written."""
    return Rejected("client.output-unwritable", f"{path.name} cannot be written ({error.strerror}): check the folder and its space")


class Output:
    """A file of mode 0600 that takes its name only when `publish` is called; until then it has none, or one that ends with it."""

    def __init__(self, path: Path) -> None:
        """Raises Rejected `client.output-exists` or `client.output-unwritable`."""
        check_output(path)
        self._path = path.absolute()
        self._draft: Path | None = None
        try:
            self.file = self._open()
        except OSError as error:
            raise unwritable(path, error) from None

    def _open(self) -> BinaryIO:
        if _NAMELESS is not None:
            with suppress(OSError):  # the file system may not know nameless files: then one with a name, below
                return os.fdopen(os.open(self._path.parent, _NAMELESS | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        self._draft = Path(name)
        return os.fdopen(descriptor, "w+b")

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self._draft is not None:
            self._draft.unlink(missing_ok=True)

    def publish(self) -> None:
        """Make what was written durable and give it its name, in one step. Raises Rejected; then nothing appeared."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # With a folder given, the link in /proc is followed to the nameless file it stands for (open(2), O_TMPFILE).
                source = self._draft or Path(f"/proc/self/fd/{self.file.fileno()}")
                os.link(source, self._path.name, dst_dir_fd=folder, follow_symlinks=True)
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise Rejected("client.output-exists", f"{self._path.name} appeared meanwhile: choose another name") from None
        except OSError as error:
            raise unwritable(self._path, error) from None
