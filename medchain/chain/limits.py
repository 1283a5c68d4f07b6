"""Hard bounds of protocol version 1, each with its reason. On-chain parameters may only be stricter. This module knows nothing else."""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 1

DIGEST_BYTES: Final = 32
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

CHAIN_ID_BYTES_MAX: Final = 64
"""A readable name; it is part of every transaction, so it stays short."""
NAME_BYTES_MAX: Final = 64
"""Hospital names and codes: coarse words, never free text."""
NONCE_BYTES: Final = 8
"""Only makes equal bodies differ; 64 random bits per sender and window are plenty."""

TRANSACTION_BYTES_MAX: Final = 64 * 1024
"""One transaction: 50 operations with their references fit many times over; records themselves never travel on chain."""
OPERATIONS_MAX: Final = 64
"""Operations of one transaction: all or nothing, so a refusal at the end must not waste much work."""
OPERATION_KIND_BYTES_MAX: Final = 48
BATCH_SIGNATURE_IDS_MAX: Final = 64
"""Ids under one batch signature: with 16 a signature is a sixteenth of the work, and a path has at most six digests."""

BLOCK_TRANSACTIONS_HARD_MAX: Final = 10_000
"""Upper bound of the parameter `block_transactions_max`: keeps a proposal (64 bytes an entry) below 1 MiB."""
BLOCK_BYTES_HARD_MAX: Final = 8 * 1024 * 1024
"""Upper bound of the parameter `block_bytes_max`, half of what the codec reads at once."""
VALIDATORS_MAX: Final = 128
"""A vote set is quadratic in messages; beyond this another protocol is wanted."""
LATE_COMMITS_MAX: Final = VALIDATORS_MAX
"""Late commits of one block: at most one a validator."""
EVIDENCE_MAX: Final = 16
"""Evidence items of one block: more than f offenders with both offences in networks of up to 24; what is left waits for the next block."""
EVIDENCE_BYTES_MAX: Final = 512
"""One item: two view changes without proofs take below 360 bytes."""
EVENTS_MAX: Final = 256
"""Events of one receipt: four for each of 64 operations."""
EVENT_BYTES_MAX: Final = 4 * 1024
RECEIPTS_BYTES_MAX: Final = 256 * 1024 * 1024
"""Receipts of one block as a node reads them back from its own store. A block of 8 MiB holds at most 200,000 operations (none is below 40
bytes), an event takes some 400 bytes: whatever a network's parameters allow, a node must be able to read what it wrote."""
RECEIPTS_ITEMS_MAX: Final = 8_000_000
"""The same counted in values: some 20 an event."""

HEIGHT_MAX: Final = 2**48
VIEW_MAX: Final = 2**32
TIME_MS_MAX: Final = 2**48
EXPIRY_WINDOW_BLOCKS_HARD_MAX: Final = 100_000
"""Wmax of protocol.md: how far back replays can ever be possible, hence how many ids a node must remember."""

GENESIS_BYTES_MAX: Final = 4 * 1024 * 1024
CERTIFICATE_DER_BYTES_MAX: Final = 8 * 1024
OPENING_KEY_BYTES_MAX: Final = 2 * 1024
"""HPKE public keys: ML-KEM-768 + X25519 needs 1,216 bytes."""
ENDPOINTS_MAX: Final = 4
ENDPOINT_BYTES_MAX: Final = 256
