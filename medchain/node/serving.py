"""Who may have ciphertext from this vault: hospitals that are to hold it, and hospitals one of whose clinicians has a live permit.

The rule is read at the node's own head each time; a permit counts only while that head is fresh (ledger.md, "Sealing and sharing", 6).
Local clients read what `records.fetch` allowed, under the same rule. Knows no file and no key.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from aiohttp import web

from medchain.actions.placement import designated_holders
from medchain.errors import Rejected
from medchain.node.anchor import Anchor, RecordVersion

REFUSALS: Final[dict[str, str]] = {
    "custody.not-permitted": "The hospital is not to hold this version and no live permit of its clinicians covers it.",
    "custody.other-root": "The blob is not the one of the named record version.",
    "custody.unknown-peer": "The asking node is not one of a member hospital.",
}

RELEASE_PATH: Final = "/custody/release"
LENT_MAX: Final = 10_000
"""Blobs that local readers were allowed to fetch since the start; the oldest is asked for anew."""


class Serving:
    """The rule of one hospital's vault."""

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._lent: OrderedDict[bytes, tuple[bytes, int, bytes | None]] = OrderedDict()
        """Root → (record, version, the permit under which it was last seen to be allowed)."""

    async def organisation_of(self, peer: bytes) -> bytes:
        """Return the organisation key of the hospital with a consensus key. Raises Rejected custody.unknown-peer."""
        organisation = await self._anchor.organisation_of(peer)
        if organisation is None:
            raise Rejected("custody.unknown-peer", "only nodes of member hospitals may ask here")
        return organisation

    async def check_hospital(self, hospital: bytes, root: bytes, record: bytes, version: int, permit: bytes | None = None) -> None:
        """Return when a hospital may have the blob `root` as that of a record version; `permit` is the one it names. Raises Rejected."""
        found = await self._anchor.record_version(record, version)
        if found.root != root:
            raise Rejected("custody.other-root", "the blob is not the one of this record version: read the record again")
        if hospital == found.custodian:
            return
        # A confirmation of custody is the hospital's own word and gives no right: else whoever wants ciphertext says that it holds it.
        members = [member.organisation_key for member in await self._anchor.hospitals()]
        if hospital in designated_holders(record, found.custodian, members):
            return
        await self._check_live_permit(found, hospital, permit)

    async def _check_live_permit(self, version: RecordVersion, hospital: bytes, named: bytes | None) -> bytes:
        await self._anchor.check_head()
        permit = await self._anchor.live_permit(version, hospital, named)
        if permit is None:
            raise Rejected(
                "custody.not-permitted",
                "no live permit of this hospital's clinicians covers this version: ask for access first, and read at the node of the "
                "hospital that credentialed the clinician",
            )
        return permit

    async def lend(self, version: RecordVersion) -> bytes:
        """Allow local clients to read a version's blob while a clinician of this hospital has a live permit; return it. Raises Rejected."""
        _, _, named = self._lent.get(version.root, (b"", 0, None))
        permit = await self._check_live_permit(version, self._anchor.organisation, named)
        self._lent[version.root] = (version.record, version.version, permit)
        self._lent.move_to_end(version.root)
        if len(self._lent) > LENT_MAX:
            self._lent.popitem(last=False)
        return permit

    async def check_local(self, request: web.Request, root: bytes) -> None:
        """Return when a local client may read a blob: it was lent, and the permit still stands. Raises Rejected."""
        lent = self._lent.get(root)
        if lent is None:
            raise Rejected("custody.not-permitted", "fetch the record first: its blob is read under a live permit only")
        record, version, permit = lent
        await self._check_live_permit(await self._anchor.record_version(record, version), self._anchor.organisation, permit)

    async def check_upload(self, request: web.Request, root: bytes) -> None:
        """Return always: local clients may upload; what they upload is bounded by the quota and worth nothing until it is registered."""
