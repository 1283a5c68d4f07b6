"""A process that seals and opens one large content and tells what that took, memory included.

    python -m medchain.bench.micro.stream FOLDER BYTES WORKERS

The plaintext is made on the way (copied from a block in memory, as a file on a memory disk would be); the sealed bytes land in a file.

A memory disk takes its pages from the machine as they are first written, and a virtual machine may first have to get them from its host,
which costs more than all of the sealing. So the file is written three times: with plain writes (what such pages cost alone), sealed into
after it was cut to nothing (what a client's scratch file sees), and sealed into once more (what sealing itself takes).
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Sequence
from typing import BinaryIO, Final, cast

from medchain.bench.micro.child import peak_bytes
from medchain.bench.micro.clinic import digest_of
from medchain.bench.micro.stopwatch import Lap
from medchain.crypto.streams import open_stream, seal_stream

BLOCK: Final = digest_of("plaintext", 0) * 32_768
"""A mebibyte: AES does not care what it encrypts."""


class Made(io.RawIOBase):
    """So many bytes that come from nowhere."""

    def __init__(self, count: int) -> None:
        self._left = count

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the streams hand in memoryviews only
        """Fill the buffer as far as bytes are left."""
        count = min(len(buffer), self._left, len(BLOCK))
        buffer[:count] = memoryview(BLOCK)[:count]
        self._left -= count
        return count


class Gone(io.RawIOBase):
    """Takes everything and keeps nothing."""

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Forget the bytes."""
        return len(data)


def main(words: Sequence[str]) -> int:
    """Write, seal, seal again, open and print."""
    folder, count, workers = words[0], int(words[1]), int(words[2])
    record = digest_of("record", 0)
    writing, sealing_anew, sealing, opening = Lap(), Lap(), Lap(), Lap()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        sealed = cast(BinaryIO, file)
        with writing:
            for start in range(0, count, len(BLOCK)):
                file.write(memoryview(BLOCK)[: count - start])
        file.seek(0)
        file.truncate()
        with sealing_anew:
            seal_stream(cast(BinaryIO, Made(count)), count, digest_of("data-key", 0), record, sealed, workers=workers)
        file.seek(0)
        key = digest_of("data-key", 1)
        with sealing:
            stream = seal_stream(cast(BinaryIO, Made(count)), count, key, record, sealed, workers=workers)
        file.seek(0)
        with opening:
            open_stream(sealed, key, stream.root, cast(BinaryIO, Gone()), workers=workers)
    answer = {
        "write_seconds": writing.wall_seconds,
        "seal_anew_seconds": sealing_anew.wall_seconds,
        "seal_seconds": sealing.wall_seconds,
        "seal_cpu_seconds": sealing.cpu_seconds,
        "open_seconds": opening.wall_seconds,
        "open_cpu_seconds": opening.cpu_seconds,
        "peak_bytes": peak_bytes(),
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
