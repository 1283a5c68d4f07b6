"""What signatures cover: nothing signed for one purpose, network or history is valid in another."""

from __future__ import annotations

import itertools
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain import domain
from medchain.chain.domain import Domain
from tests.chain.conftest import NETWORK, digest

PURPOSES = (
    domain.TRANSACTION, domain.PREPARE, domain.COMMIT, domain.VIEW_CHANGE, domain.HANDSHAKE, domain.RELEASE, domain.REQUEST,
)  # fmt: skip


def test_signed_bytes_are_the_tagged_digest_of_genesis_recovery_number_and_content():
    tag = sha256(b"medchain/sign/commit").digest()
    content = codec.encode([NETWORK.genesis, 0, b"content"])
    assert NETWORK.signed_bytes(domain.COMMIT, b"content") == sha256(tag + tag + content).digest()


def test_no_two_purposes_networks_or_histories_sign_the_same_bytes():
    networks = (NETWORK, Domain(digest("other genesis"), 0), Domain(NETWORK.genesis, 1))
    signed = [network.signed_bytes(purpose, b"content") for network, purpose in itertools.product(networks, PURPOSES)]
    assert len(set(signed)) == len(networks) * len(PURPOSES)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_other_content_gives_other_signed_bytes(one: bytes, other: bytes):
    assert (NETWORK.signed_bytes(domain.REQUEST, one) == NETWORK.signed_bytes(domain.REQUEST, other)) == (one == other)
