"""The handshake as it happens on a WebSocket: send, receive, check, in the order of handshake.py. Knows one connection and no other."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from medchain.chain.domain import Domain
from medchain.chain.genesis import Hospital
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed, Rejected, Unavailable
from medchain.network.connection import Socket, Tap
from medchain.network.handshake import (
    CHALLENGE_BYTES,
    DIALLER,
    LISTENER,
    REFUSALS,
    HandshakeMessage,
    Hello,
    Proof,
    Refusal,
    Transcript,
    check_hello,
    check_proof,
    decode_handshake,
    encode_handshake,
    make_proof,
)

M = TypeVar("M", Hello, Proof)


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a successful handshake told us of the peer."""

    peer: bytes
    version: int
    """Of peer messages."""
    height: int
    """What the peer said its height was."""


@dataclass(frozen=True, slots=True)
class Greeter:
    """This node's side of handshakes."""

    network: Domain
    key: SigningKey
    certificate: bytes
    """Our own, DER."""
    hospitals: Mapping[bytes, Hospital]
    height: Callable[[], int]
    tap: Tap | None

    async def greet(self, ws: Socket, *, peer: bytes, certificate: bytes, is_dialler: bool, admit: Callable[[], None]) -> Greeting:
        """Do the handshake with the hospital `peer` whose `certificate` TLS has proven.

        `admit` is asked after the peer has proven its key and before it is welcomed; it may raise Rejected with a code of the handshake.
        Raises Rejected (ours, or the peer's refusal), Malformed (what came is no handshake), Unavailable (the line broke).
        """
        line = _Line(ws, peer, self.tap)
        try:
            if is_dialler:
                return await self._dial(line, peer, certificate, admit)
            return await self._listen(line, peer, certificate, admit)
        except Rejected as error:
            await line.refuse(error.code)
            raise
        except Malformed:
            await line.refuse("handshake.unreadable")
            raise

    def _hello(self) -> Hello:
        return Hello.make(self.network, self.key.public, self.height(), secrets.token_bytes(CHALLENGE_BYTES))

    async def _dial(self, line: _Line, peer: bytes, certificate: bytes, admit: Callable[[], None]) -> Greeting:
        own = self._hello()
        own_bytes = await line.say(own)
        theirs, their_bytes = await line.hear(Hello)
        version = check_hello(theirs, own, self.hospitals, certificate)
        transcript = Transcript(own_bytes, their_bytes, self.certificate, certificate)
        await line.say(make_proof(transcript, self.network, DIALLER, self.key))
        proof, _ = await line.hear(Proof)
        line.is_over = True  # for the listener the handshake has ended: whatever came now would be a frame to it
        check_proof(proof, transcript, self.network, LISTENER, peer)
        admit()
        return Greeting(peer, version, theirs.height)

    async def _listen(self, line: _Line, peer: bytes, certificate: bytes, admit: Callable[[], None]) -> Greeting:
        theirs, their_bytes = await line.hear(Hello)
        own = self._hello()
        version = check_hello(theirs, own, self.hospitals, certificate)
        own_bytes = await line.say(own)
        transcript = Transcript(their_bytes, own_bytes, certificate, self.certificate)
        proof, _ = await line.hear(Proof)
        check_proof(proof, transcript, self.network, DIALLER, peer)
        admit()
        await line.say(make_proof(transcript, self.network, LISTENER, self.key))
        return Greeting(peer, version, theirs.height)


class _Line:
    """Handshake messages over one WebSocket."""

    def __init__(self, ws: Socket, peer: bytes, tap: Tap | None) -> None:
        self._ws = ws
        self._peer = peer
        self._tap = tap
        self.is_over = False
        """No word of the handshake may follow."""

    async def say(self, message: HandshakeMessage) -> bytes:
        """Send a message; return its bytes."""
        data = encode_handshake(message)
        if self._tap is not None:
            self._tap("out", self._peer, data)
        try:
            await self._ws.send_bytes(data)
        except (OSError, RuntimeError, aiohttp.ClientError):
            raise Unavailable("lost") from None
        return data

    async def hear(self, expected: type[M]) -> tuple[M, bytes]:
        """Receive the expected message. Raises Rejected for a refusal, Malformed for anything else, Unavailable when the line broke."""
        frame = await self._ws.receive()
        while frame.type is aiohttp.WSMsgType.PONG:
            frame = await self._ws.receive()
        if frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
            raise Unavailable("lost")
        if frame.type is not aiohttp.WSMsgType.BINARY:
            if frame.type is aiohttp.WSMsgType.ERROR and not isinstance(frame.data, aiohttp.WebSocketError):
                raise Unavailable("lost")
            raise Malformed("the peer sent something else than a handshake")
        if self._tap is not None:
            self._tap("in", self._peer, frame.data)
        message = decode_handshake(frame.data)
        if isinstance(message, Refusal):
            self.is_over = True
            raise Rejected(message.code, f"the peer refused: {REFUSALS[message.code]}")
        if not isinstance(message, expected):
            raise Malformed("the peer sent a message of the handshake out of turn")
        return message, frame.data

    async def refuse(self, code: str) -> None:
        """Tell the peer why, as far as the line still carries it."""
        if self.is_over:
            return
        try:
            await self.say(Refusal(code if code in REFUSALS else "handshake.unreadable"))
        except Unavailable:
            return
