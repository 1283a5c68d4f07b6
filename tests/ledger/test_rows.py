"""Rows: what is written comes back; what cannot be read is our own fault."""

from __future__ import annotations

import pytest

from medchain import codec
from medchain.errors import InvariantBroken
from medchain.ledger import rows
from medchain.ledger.people import CredentialEnd
from medchain.ledger.permits import PermitUse


def test_row_comes_back_as_it_was_written_with_tuples():
    use = PermitUse(3, (1, 2), (1,))
    assert rows.decode_row(PermitUse, rows.encode_row(use)) == use


@pytest.mark.parametrize(
    "stored", [b"", b"\xc1", codec.encode([1, 2]), codec.encode([1, 2, 3, 4]), codec.encode({"a": 1}), b"\x93\x01\x02"]
)
def test_row_that_cannot_be_read_is_a_broken_invariant(stored):
    with pytest.raises(InvariantBroken):
        rows.decode_row(CredentialEnd, stored)


def test_no_key_range_is_the_beginning_of_another():
    ranges = [value for name, value in vars(rows).items() if name.isupper() and isinstance(value, bytes) and name != "INDEX"]
    assert len(ranges) > 20
    for one in ranges:
        assert not [other for other in ranges if other != one and other.startswith(one)]


def test_every_key_range_stands_in_the_table_of_the_module():
    named = [value.decode() for name, value in vars(rows).items() if name.isupper() and isinstance(value, bytes) and name != "INDEX"]
    listed = [line.split()[0] for line in (rows.__doc__ or "").splitlines() if line.startswith("    ") and not line.startswith("    range")]
    assert sorted(named) == sorted(listed)


def test_a_row_of_the_own_state_is_read_without_being_remembered() -> None:
    use = PermitUse(3, (1, 2), (1,))
    assert rows.decode_changing_row(PermitUse, rows.encode_row(use)) == use
    for stored in (b"", b"\xc1", b"\x91\x01", b"\x01"):
        with pytest.raises(InvariantBroken):
            rows.decode_changing_row(PermitUse, stored)
