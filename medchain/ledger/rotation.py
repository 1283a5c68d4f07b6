"""Who takes turns as primary: a row under the state root that counts who signs and who lets its turns pass, and the order made of it.

A function of the chain alone: of the certificates and late commits that blocks carry, never of what a node happens to hold, so everybody
computes the same (protocol.md, "Primary"; lessons.md, second table: "Late commits under no digest", "A primary that signs but never
proposes"). Knows no view change and no clock; consensus/rotation.py picks the primary of a view from the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final

from medchain import codec
from medchain.chain.block import LastCommit
from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis
from medchain.chain.validators import ValidatorSet
from medchain.errors import InvariantBroken
from medchain.ledger import rows
from medchain.ledger.execution import BlockContext, Carried
from medchain.ledger.hospitals import parameters_of, validators_of
from medchain.ledger.rows import decode_row
from medchain.store.overlay import Overlay, StateView

ROWS_CACHED_MAX: Final = 64
"""The row is read several times for each block and changes with each: the latest few are remembered as read."""
DECAY_TURNS: Final = 64
"""A skip is forgotten for every so many turns' worth of heights (64 n) since the last one."""
DOUBLINGS_MAX: Final = 8
"""A bar lasts at most 2^8 windows: a hospital that is repaired after a year of lame duty leads again within 256 K heights. One that signed
two contradicting statements is barred as long at once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the chain says of one validator."""

    consensus_key: bytes
    newest_signed: int
    """Greatest height for which a block carried a commit by it; for one that joined, the height below its first."""
    skips: int = 0
    """Heights it let pass as primary, less those forgotten."""
    last_skip: int = 0
    barred_until: int = 0
    """The last height at which it is barred."""


@dataclass(frozen=True, slots=True)
class RotationRow:
    """The row after executing height h, so that block h + 1 can be judged by it."""

    standings: tuple[Standing, ...]
    """Of the validators of height h, in key order: a commit's index in the certificate of h is a place here."""
    order: tuple[int, ...]
    """R(h), as places in `standings`."""

    def encode(self) -> bytes:
        """Return the stored bytes."""
        return codec.encode([[[getattr(item, name) for name in _STANDING_FIELDS] for item in self.standings], list(self.order)])

    @classmethod
    def decode(cls, data: bytes) -> RotationRow:
        """Read stored bytes. Raises InvariantBroken: only our own rules write them."""
        return _read_row(data)


@lru_cache(maxsize=ROWS_CACHED_MAX)
def _read_row(data: bytes) -> RotationRow:
    row = decode_row(RotationRow, data)
    try:
        return RotationRow(tuple(Standing(*values) for values in row.standings), row.order)  # type: ignore[misc]  # plain values as stored
    except TypeError:
        raise InvariantBroken("a stored standing has another number of fields") from None


_STANDING_FIELDS: Final = tuple(field.name for field in fields(Standing))


def founding_row(genesis: Genesis) -> bytes:
    """Return the row after the genesis document: nobody has signed or skipped anything yet, everybody takes turns."""
    validators = genesis.validators()
    return RotationRow(_aligned((), validators, 0), tuple(range(len(validators)))).encode()


def rotation_of(view: StateView, height: int) -> tuple[bytes, ...]:
    """Return R(height), the consensus keys that take turns at `height`, from `view`, the state after height - 1."""
    validators = validators_of(view)
    standings = _aligned(_row_of(view).standings, validators, height - 1)
    places = order(standings, validators, height, parameters_of(view).rotation_window(len(validators)))
    return tuple(standings[place].consensus_key for place in places)


def standings_of(view: StateView) -> tuple[Standing, ...]:
    """Return what the state says of the validators of its newest height, in key order."""
    return _row_of(view).standings


def signed_heights(view: StateView, certificate: Certificate | None) -> dict[bytes, int]:
    """Return consensus key → newest height signed, as it stands after a block on `view` carried this certificate of its parent."""
    standings = _with_certificate(_row_of(view).standings, certificate)
    return {standing.consensus_key: standing.newest_signed for standing in standings}


def order(standings: Sequence[Standing], validators: ValidatorSet, height: int, window_blocks: int) -> tuple[int, ...]:
    """Return R(height) as places in the set: those that may vote, in key order, less at most n - q of them.

    `standings` (one a validator, in key order) are those after height - 1, which know the certificates up to height - 2. Left out are
    first those unsigned in all of the last `window_blocks` heights known, [height - 1 - window_blocks, height - 2], the longest first,
    then those barred at `height`, the one barred longest first, ties in key order; and never so many that fewer than q remain.
    """
    voters = [place for place, validator in enumerate(validators.validators) if validator.may_vote]
    unsigned = [place for place in voters if standings[place].newest_signed < height - 1 - window_blocks]
    barred = [place for place in voters if place not in unsigned and standings[place].barred_until >= height]
    unsigned.sort(key=lambda place: standings[place].newest_signed)  # sorting is stable: ties stay in key order
    barred.sort(key=lambda place: -standings[place].barred_until)
    left_out = [*unsigned, *barred][: max(0, len(voters) - validators.quorum)]
    return tuple(place for place in voters if place not in left_out)


def take_carried(state: Overlay, context: BlockContext, carried: Carried) -> None:
    """Executing block g + 1: note who signed, punish who let its turn of g pass, and keep R(g + 1) for the next block.

    Comes before everything else in a block, since R(g + 1) is of the state after g. Block 1 carries no certificate, and the founding row
    says R(1). Raises InvariantBroken for a state without its row.
    """
    certificate = carried.last_commit.certificate
    if certificate is None:
        return
    row, validators = _row_of(state), validators_of(state)
    window_blocks = context.parameters.rotation_window(len(validators))
    places = order(_aligned(row.standings, validators, context.height - 1), validators, context.height, window_blocks)
    standings = _with_late_commits(_with_certificate(row.standings, certificate), carried.last_commit)
    standings = punished(standings, row.order, certificate.height, certificate.view, carried.parent_proposer, window_blocks)
    state.put(rows.ROTATION, RotationRow(_aligned(standings, validators, context.height - 1), places).encode())


def punished(
    standings: tuple[Standing, ...], places: Sequence[int], height: int, deciding_view: int, proposer: bytes, window_blocks: int
) -> tuple[Standing, ...]:
    """Return the standings after `height` was decided in `deciding_view`: each primary of a view below it skipped its turn, once.

    `places` is R(height). Not punished is the `proposer` of the decided block: its block was good, only late. Skips of long ago are
    forgotten, one for every 64 n heights since the last (n validators), so an old penalty neither lasts nor excuses a new one; and no
    penalty shortens another.
    """
    skipped = {places[(height + view) % len(places)] for view in range(min(deciding_view, len(places)))}  # views repeat the same primaries
    n = len(standings)
    found = list(standings)
    for place in sorted(skipped):
        standing = standings[place]
        if standing.consensus_key == proposer:
            continue
        skips = max(0, standing.skips - (height - standing.last_skip) // (DECAY_TURNS * n)) + 1
        barred_until = height + 1 + window_blocks * 2 ** min(skips - 1, DOUBLINGS_MAX)
        found[place] = replace(standing, skips=skips, last_skip=height, barred_until=max(standing.barred_until, barred_until))
    return tuple(found)


def convict(state: Overlay, context: BlockContext, offender: bytes) -> None:
    """Bar a validator whose contradiction this block records for the longest time there is, from the next height on.

    A primary that proposes two blocks costs a view each time and lets no turn pass, once one of them is decided after all. `offender`:
    consensus key; of one that is no validator any more nothing is noted.
    """
    row = _row_of(state)
    until = context.height + context.parameters.rotation_window(len(row.standings)) * 2**DOUBLINGS_MAX
    standings = tuple(
        replace(item, barred_until=max(item.barred_until, until)) if item.consensus_key == offender else item for item in row.standings
    )
    state.put(rows.ROTATION, RotationRow(standings, row.order).encode())


def _row_of(view: StateView) -> RotationRow:
    stored = view.get(rows.ROTATION)
    if stored is None:
        raise InvariantBroken("the state holds no rotation: the genesis rows are missing")
    return RotationRow.decode(stored)


def _with_certificate(standings: tuple[Standing, ...], certificate: Certificate | None) -> tuple[Standing, ...]:
    if certificate is None:
        return standings
    signers = {index for index, _ in certificate.commits}
    return tuple(_signed(item, certificate.height) if place in signers else item for place, item in enumerate(standings))


def _with_late_commits(standings: tuple[Standing, ...], last_commit: LastCommit) -> tuple[Standing, ...]:
    if not last_commit.late:
        return standings
    newest = {vote.signer: vote.height for vote in last_commit.late}  # in ascending order of height: the last one counts
    return tuple(_signed(item, newest.get(item.consensus_key, 0)) for item in standings)


def _signed(standing: Standing, height: int) -> Standing:
    if standing.newest_signed >= height:
        return standing
    # Written out: nearly every validator signs every height, and `replace` looks the fields up anew each time.
    return Standing(standing.consensus_key, height, standing.skips, standing.last_skip, standing.barred_until)


def _aligned(standings: tuple[Standing, ...], validators: ValidatorSet, height: int) -> tuple[Standing, ...]:
    """Return one standing for each validator of the set: who left is forgotten, who joins counts as having signed `height`."""
    if tuple(standing.consensus_key for standing in standings) == validators.keys:
        return standings
    known = {standing.consensus_key: standing for standing in standings}
    return tuple(known.get(key) or Standing(key, height) for key in validators.keys)
