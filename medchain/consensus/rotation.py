"""Who leads: the primary of a height and view, behind one function.

All validators that may vote, in key order, take turns: place (height + view) mod their number. The rule that skips silent primaries
(protocol.md, "Primary") reads state under the root; when that state exists, only this module changes. Knows no votes.
"""

from __future__ import annotations

from medchain.chain.validators import ValidatorSet


def candidates(validators: ValidatorSet) -> tuple[bytes, ...]:
    """Return the consensus keys that take turns, in order."""
    return tuple(validator.consensus_key for validator in validators.validators if validator.may_vote)


def primary(validators: ValidatorSet, height: int, view: int) -> bytes:
    """Return the consensus key of the primary of (height, view); empty bytes, which are no key, when nobody may vote."""
    keys = candidates(validators)
    return keys[(height + view) % len(keys)] if keys else b""
