"""What people write on a command line, read: identities, moments, months. Everything else raises Malformed.

This module knows no command and asks nobody.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from medchain.errors import Malformed

IDENTITY_DIGITS: Final = 64
_SPAN: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MONTH: Final = re.compile(r"([0-9]{4})-([0-9]{2})")
MOMENT_FORMS: Final = "a day (2027-01-01), a moment (2027-01-01T12:00:00Z), or a span from now (90s, 15m, 12h, 30d)"


def identity(text: str, what: str) -> bytes:
    """Return the 32 bytes of an id or key written as 64 hexadecimal digits. Raises Malformed."""
    try:
        found = bytes.fromhex(text) if len(text) == IDENTITY_DIGITS and text.isalnum() else b""
    except ValueError:
        found = b""
    if not found:
        raise Malformed(f"{what} is {IDENTITY_DIGITS} hexadecimal digits, not {text[:80]!r}")
    return found


def is_identity(text: str) -> bool:
    """Answer whether `text` has the form of an id or key."""
    return len(text) == IDENTITY_DIGITS and all(character in "0123456789abcdefABCDEF" for character in text)


def moment_ms(text: str, what: str, now: datetime) -> int:
    """Return a moment in milliseconds since 1970; a day means its beginning, and a moment without a zone is UTC. Raises Malformed."""
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            moment = now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
        since = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        since = -1
    if since < 0:
        raise Malformed(f"{what} is {MOMENT_FORMS}, not {text[:80]!r}")
    return since


def month(text: str, what: str) -> tuple[int, int]:
    """Return (year, month) of `2026-03`. Raises Malformed."""
    found = _MONTH.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 12:
        raise Malformed(f"{what} is a year and a month such as 2026-03, not {text[:80]!r}")
    return int(found[1]), int(found[2])


def moment_text(time_ms: int) -> str:
    """Return milliseconds since 1970 as people read them, to the second, in UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
