"""Recording traffic for tests: exactly the bytes, and a folder that cannot be written stops the start."""

from __future__ import annotations

import pytest

from medchain.errors import Rejected
from medchain.node.recorder import PEER_FRAMES, RPC_BODIES, Recorder


def test_every_byte_is_kept_also_over_restarts(tmp_path):
    for part in (b"one", b"two"):
        recorder = Recorder(tmp_path / "traffic")
        recorder.peer_frame("out", bytes(32), b"frame " + part)
        recorder.rpc_body("in", b"body " + part)
        recorder.close()
    assert (tmp_path / "traffic" / PEER_FRAMES).read_bytes() == b"frame oneframe two"
    assert (tmp_path / "traffic" / RPC_BODIES).read_bytes() == b"body onebody two"


def test_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Rejected) as caught:
        Recorder(tmp_path / "file" / "traffic")
    assert caught.value.code == "home.unusable"
