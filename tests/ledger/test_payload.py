"""Payload readers: narrow alphabets and bounds, Malformed and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.errors import Malformed
from medchain.ledger import payload

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("code", ["general", "HIV", "fhir-bundle", "lab_2", "A", "x" * 32, "ICD-10-CM"])
def test_code_of_letters_digits_and_dashes_is_accepted(code):
    assert payload.as_code(code, "code") == code


@pytest.mark.parametrize(
    "text",
    [
        "", "two words", "9lives", "-dash", "x" * 33, "naïve", "名字", "a.b", "a\n",
        "born19800229", "id-123456", "tel0800-55-17", 7, None, b"code",
    ],
)  # fmt: skip
def test_free_text_long_text_and_numbers_of_persons_are_no_codes(text):
    with pytest.raises(Malformed):
        payload.as_code(text, "code")


def test_opening_key_must_have_the_length_of_its_suite():
    assert payload.as_opening_key(1, bytes(1216)) == (1, bytes(1216))
    assert payload.as_opening_key(2, bytes(32)) == (2, bytes(32))
    for suite, key in ((1, bytes(32)), (2, bytes(1216)), (3, bytes(32)), (0, b""), (True, bytes(32)), (None, bytes(32)), (2, "x" * 32)):
        with pytest.raises(Malformed):
            payload.as_opening_key(suite, key)


@pytest.mark.parametrize("value", [0, -1, 2**32, True, None, "1", b"1"])
def test_version_is_counted_from_one(value):
    with pytest.raises(Malformed):
        payload.as_number(value, "version")


@given(ANYTHING)
def test_readers_raise_malformed_or_return_what_they_were_given(value):
    readers = [
        lambda: payload.as_code(value, "x"), lambda: payload.as_word(value, "x", payload.PURPOSES), lambda: payload.as_digest(value, "x"),
        lambda: payload.as_key(value, "x"), lambda: payload.as_number(value, "x"), lambda: payload.as_time_ms(value, "x"),
    ]  # fmt: skip
    for read in readers:
        with suppress(Malformed):
            assert read() == value
