"""Bounds of the client listener, each with its reason. Clients may be slow, many or hostile; agreement is never starved by them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """What one client listener tolerates."""

    body_bytes_max: int = 9 * 1024 * 1024
    """A full tx.submit_batch (64 transactions of 64 KiB) as hexadecimal text, and a margin."""
    values_max: int = 8_192
    """Values in one body, so that a body of brackets does not become a hundred times its size; a batch of full calls has fewer."""
    depth_max: int = 8
    """The deepest body, a batch of calls with lists among their parameters, has four levels."""
    batch_max: int = 64
    """Calls of one JSON-RPC batch."""
    connections_max: int = 256
    """Open connections: a hospital's gateways, not the public."""
    in_flight_max: int = 512
    """Calls that are being answered. Beyond it clients are told to come again."""
    waiting_max: int = 384
    """Of these, calls that wait for a decision (tx.wait): waiting must leave room for submitting."""
    calls_per_second: float = 5_000.0
    """Sustained calls, far above what the chain decides."""
    calls_burst: float = 10_000.0
    """Calls at once after a quiet time."""
    head_timeout_ms: int = 10_000
    """From connecting to the end of the first request's head: a connection that says nothing is not kept."""
    body_timeout_ms: int = 30_000
    """To read one JSON-RPC body."""
    linger_ms: int = 1_000
    """How long the rest of a refused body is taken in, so that its sender reads why before the connection closes."""
    keepalive_ms: int = 75_000
    """An idle connection between requests."""
    stop_grace_ms: int = 2_000
    """How long calls may end by themselves when the node stops."""
