"""The five families: whose fault it is, is the type, and each answers with a stable code and a message."""

from __future__ import annotations

import pickle

import pytest

from medchain.errors import InvariantBroken, Malformed, MedchainError, Misbehaviour, Rejected, Unavailable

FAMILIES = (
    (Malformed("bad bytes"), "malformed"),
    (Rejected("keyfile.exists", "there is a file already"), "keyfile.exists"),
    (Misbehaviour(b"\x01" * 32, "two votes", b"proof"), "misbehaviour"),
    (Unavailable("try later", 250), "unavailable"),
    (InvariantBroken("a bug"), "invariant"),
)


@pytest.mark.parametrize(("error", "code"), FAMILIES, ids=[code for _, code in FAMILIES])
def test_each_family_is_a_medchain_error_with_a_code_and_a_message(error: MedchainError, code: str) -> None:
    assert isinstance(error, MedchainError)
    assert error.code == code  # type: ignore[attr-defined]
    assert error.message in str(error)  # type: ignore[attr-defined]


def test_families_are_not_each_others_kind() -> None:
    kinds = [type(error) for error, _ in FAMILIES]
    for kind in kinds:
        assert [other for other in kinds if issubclass(other, kind)] == [kind]


def test_rejected_shows_its_code_after_its_message() -> None:
    assert str(Rejected("keyfile.exists", "there is a file already")) == "there is a file already [keyfile.exists]"


def test_misbehaviour_carries_the_peer_and_the_evidence() -> None:
    error = Misbehaviour(b"\x01" * 32, "two votes", b"proof")
    assert (error.peer, error.evidence) == (b"\x01" * 32, b"proof")
    assert Misbehaviour(b"\x01" * 32, "two votes").evidence == b""
    assert error.peer.hex() not in str(error)


def test_unavailable_hints_when_to_try_again() -> None:
    assert Unavailable("try later", 250).retry_after_ms == 250
    assert Unavailable("try later").retry_after_ms == 0


@pytest.mark.parametrize("error", [error for error, _ in FAMILIES], ids=[code for _, code in FAMILIES])
def test_an_error_crosses_a_process_boundary_unchanged(error: MedchainError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
