"""The bytes of a pre-prepare."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain import codec
from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.messages import PrePrepare
from medchain.errors import Malformed
from tests.consensus.conftest import make_proposal, proof_of, validators_of, view_change, vote

V4 = validators_of(4)
BLOCK = make_proposal(V4)
FULL = PrePrepare(
    BLOCK,
    vote(3, PREPARE, BLOCK, view=2),
    (view_change(0, 2, proof_of(BLOCK, 0, (0, 1, 2))), view_change(1, 2), view_change(3, 2)),
)


@pytest.mark.parametrize("message", [FULL, PrePrepare(BLOCK, vote(1, PREPARE, BLOCK))])
def test_pre_prepare_survives_its_encoding(message):
    assert PrePrepare.from_value(codec.decode(codec.encode(message.to_value()))) == message
    assert (message.height, message.view, message.digest) == (1, message.prepare.view, BLOCK.header.digest())


@pytest.mark.parametrize(
    "broken",
    [
        replace(FULL, prepare=vote(3, COMMIT, BLOCK, view=2)),
        replace(FULL, prepare=vote(3, PREPARE, make_proposal(V4, salt=b"other"), view=2)),
        replace(FULL, proposal=make_proposal(V4, view=3), prepare=vote(3, PREPARE, make_proposal(V4, view=3), view=2)),
    ],
)
def test_envelope_around_another_block_is_malformed(broken):
    with pytest.raises(Malformed):
        PrePrepare.from_value(codec.decode(codec.encode(broken.to_value())))


def test_every_single_changed_byte_is_refused_or_changes_the_message():
    good = codec.encode(FULL.to_value())
    for position in range(0, len(good), 7):
        bad = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        try:
            assert PrePrepare.from_value(codec.decode(bad)) != FULL
        except Malformed:
            continue
