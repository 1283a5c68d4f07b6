"""The five families of errors, and nothing else.

Whose fault it is, is the type: bytes that cannot be read, a rule that says no, a peer that lied, something that is not there now, or our
own bug. This module knows no room above it; each room lists its refusal codes in a table `REFUSALS` of its own.
"""

from __future__ import annotations


class MedchainError(Exception):
    """Root of the families; caught only where an answer to a person or a peer is written."""


class Malformed(MedchainError):
    """Bytes or text from outside that are not what their format says. Nothing was changed, nothing was believed."""

    code = "malformed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Rejected(MedchainError):
    """A rule said no. `code` is stable and machine readable, `message` is a sentence that says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    def __reduce__(self) -> tuple[type[Rejected], tuple[str, str]]:
        """Cross a process boundary with both fields; an exception alone would give its constructor the message only."""
        return type(self), (self.code, self.message)


class Misbehaviour(MedchainError):
    """A peer broke a rule that no honest peer breaks. `peer` is its public key, `evidence` the bytes that show it (may be empty)."""

    code = "misbehaviour"

    def __init__(self, peer: bytes, message: str, evidence: bytes = b"") -> None:
        super().__init__(message)
        self.peer = peer
        self.message = message
        self.evidence = evidence

    def __reduce__(self) -> tuple[type[Misbehaviour], tuple[bytes, str, bytes]]:
        """Cross a process boundary with all fields."""
        return type(self), (self.peer, self.message, self.evidence)


class Unavailable(MedchainError):
    """Something needed is not there now; trying again later may help. `retry_after_ms` is a hint, 0 = unknown."""

    code = "unavailable"

    def __init__(self, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


class InvariantBroken(MedchainError):
    """Our own bug or a broken machine: the node stops. Never caught except to print it and end the process."""

    code = "invariant"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
