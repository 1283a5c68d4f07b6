"""Readers of operation payloads: codes, keys and digests under their bounds, and nothing else.

What comes here was written by anyone with a key, so every reader bounds what it returns and raises Malformed. Codes are coarse words from a
narrow alphabet: the chain carries no free text (ledger.md). This module knows no operation.
"""

from __future__ import annotations

import re
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.crypto import sealing
from medchain.errors import Malformed

CODE_BYTES_MAX: Final = 32
"""A code is one coarse word or two; a sentence does not fit."""
CODE_DIGITS_MAX: Final = 5
"""Fewer digits than a birth date, a telephone or an identity number has, so that none of them passes for a code."""
_CODE: Final = re.compile(rf"[A-Za-z](?:[A-Za-z_-]*[0-9]){{0,{CODE_DIGITS_MAX}}}[A-Za-z_-]*\Z")

PURPOSES: Final = ("TREAT", "HPAYMT", "HOPERAT", "HRESCH", "ETREAT", "BTG", "PATRQT")
"""Purposes of use (HL7 v3 PurposeOfUse, as named in ledger.md, "Consent")."""
EMERGENCY: Final = "BTG"
"""The purpose of breaking the glass: it is declared with `access.emergency`, never asked for with `access.request`."""

DIGEST_BYTES: Final = limits.DIGEST_BYTES
NUMBER_MAX: Final = 2**32 - 1
"""Versions, epochs and credentials are counted in 32 bits: one a second for a century."""


def as_code(value: Any, what: str) -> str:
    """Return `value` if it is a code: a letter, then letters, digits, `-` and `_`, at most 32 bytes with at most five digits.

    Raises Malformed.
    """
    text = codec.as_text(value, what, CODE_BYTES_MAX)
    if _CODE.match(text) is None:
        raise Malformed(f"{what} must be a short code of letters, digits, '-' and '_' with at most {CODE_DIGITS_MAX} digits")
    return text


def as_word(value: Any, what: str, words: tuple[str, ...]) -> str:
    """Return `value` if it is one of the listed words. Raises Malformed."""
    text = codec.as_text(value, what, CODE_BYTES_MAX)
    if text not in words:
        raise Malformed(f"{what} must be one of: {', '.join(words)}")
    return text


def as_digest(value: Any, what: str) -> bytes:
    """Return `value` if it is 32 bytes: a digest, an id, a token. Raises Malformed."""
    return codec.as_bytes(value, what, length=DIGEST_BYTES)


def as_key(value: Any, what: str) -> bytes:
    """Return `value` if it has the length of an Ed25519 public key. Raises Malformed."""
    return codec.as_bytes(value, what, length=limits.KEY_BYTES)


def as_number(value: Any, what: str) -> int:
    """Return `value` if it is a version, an epoch or another ordinal: from 1 on. Raises Malformed."""
    if codec.as_uint(value, what, NUMBER_MAX) < 1:
        raise Malformed(f"{what} is counted from 1")
    return int(value)


def as_time_ms(value: Any, what: str) -> int:
    """Return `value` if it is a time in milliseconds since 1970. Raises Malformed."""
    return codec.as_uint(value, what, limits.TIME_MS_MAX)


def as_opening_key(suite: Any, key: Any) -> tuple[int, bytes]:
    """Return (suite, HPKE public key) if the suite is known and the key has its length. Raises Malformed.

    Whether the key is a point on its curve is found by whoever seals to it; nothing on chain depends on it.
    """
    number = codec.as_uint(suite, "opening suite", 255)
    length = sealing.PUBLIC_KEY_BYTES.get(number)
    if length is None:
        raise Malformed("the opening suite is not known")
    return number, codec.as_bytes(key, "opening key", length=length)
