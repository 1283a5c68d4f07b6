"""For tests only: appends every peer frame before TLS and every RPC body to files, so that a search for plaintext sees all that leaves.

Off unless the setting record_traffic_directory names a folder. What it writes is exactly the bytes, in order, nothing between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from medchain.errors import Rejected

PEER_FRAMES: Final = "peer-frames.bin"
RPC_BODIES: Final = "rpc-bodies.bin"


class Recorder:
    """Two files in one folder."""

    def __init__(self, directory: Path) -> None:
        """Make the folder and open both files. Raises Rejected home.unusable."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._peers = (directory / PEER_FRAMES).open("ab", buffering=0)
            self._clients = (directory / RPC_BODIES).open("ab", buffering=0)
        except OSError as error:
            message = f"{directory} cannot record traffic ({error.strerror}): correct record_traffic_directory, or leave it empty."
            raise Rejected("home.unusable", message) from None

    def peer_frame(self, direction: str, peer: bytes, frame: bytes) -> None:
        """Take a frame as PeerNetwork hands it out: before TLS when it leaves, after TLS when it arrived."""
        self._peers.write(frame)

    def rpc_body(self, direction: str, body: bytes) -> None:
        """Take a body as RpcServer hands it out."""
        self._clients.write(body)

    def close(self) -> None:
        """Close both files."""
        self._peers.close()
        self._clients.close()
