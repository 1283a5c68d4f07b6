"""A connection to one node: calls of the method table, submitting, waiting, and facts about the network that are proven, not believed.

Errors come back as what they were on the node: Rejected with its code, Unavailable with its hint, Malformed. Knows no key and no file.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import aiohttp

from medchain.chain import limits
from medchain.chain.block import Header
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Transaction
from medchain.errors import Malformed, Rejected, Unavailable
from medchain.store.proof import PROOF_BYTES_MAX, StateProof
from medchain.wire import methods
from medchain.wire.methods import METHODS, params_to_json, read_hex
from medchain.wire.proof import VALUE_BYTES_MAX, StateFacts, StateFileProof, verify_state_proof

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest answer is a full block with its receipts as text, below 40 MiB."""
CALL_TIMEOUT_MS: Final = 30_000
CUSTODIAN_TIMEOUT_MS: Final = 120_000
"""Putting and releasing end on the chain, and a busy or recovering network may take its time."""
CONNECT_TIMEOUT_MS: Final = 5_000
RETRY_MS_MAX: Final = 3_600_000
SENTENCE_CHARACTERS_MAX: Final = 500
DECIDED: Final = "transaction.decided"
"""The code of one that is handed in again after its block."""
_CODE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.[a-z0-9_-]{1,48})*")


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a client must know of a network to sign for it."""

    genesis: Genesis
    network: Domain
    expiry_window_blocks: int
    """The parameter in force when it was asked for."""

    @property
    def chain_id(self) -> str:
        """Name of the chain, part of every transaction."""
        return self.genesis.chain_id


class NodeClient:
    """Speaks to the RPC listener at `url`. An async context manager; one for each event loop."""

    def __init__(self, url: str, *, genesis: Genesis | None = None) -> None:
        """With `genesis`, a node of any other network is refused and proofs are worth what that document is worth.

        Without it the node's own document is taken: enough to use the own hospital's node, not to check it.
        """
        self.url = url.rstrip("/")
        self._pinned = genesis
        self._facts: NetworkFacts | None = None
        self._session: aiohttp.ClientSession | None = None
        self._last_id = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; a later call opens it again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # ---- calls ---------------------------------------------------------------------------------------------------------------

    async def call(self, method: str, /, **params: Any) -> Any:
        """Return the answer to a method of wire/methods.py; bytes are given as bytes and come back as hexadecimal text.

        Raises Malformed for parameters the table does not allow, and Rejected, Unavailable or Malformed as the node answers.
        """
        written = params_to_json(method, params)
        self._last_id += 1
        identity = self._last_id
        body = json.dumps({"jsonrpc": methods.JSONRPC_VERSION, "id": identity, "method": method, "params": written})
        answer = await self._post(body.encode(), _timeout_ms(method, written))
        if not isinstance(answer, dict):
            raise self._not_a_node()
        if "error" in answer:
            raise_error(answer["error"])
        if answer.get("id") != identity or "result" not in answer:
            raise self._not_a_node()
        return answer["result"]

    async def _post(self, body: bytes, timeout_ms: int) -> Any:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                request = self.session.post(f"{self.url}/", data=body, headers={"Content-Type": "application/json"}, allow_redirects=False)
                async with request as response:
                    data = await read_answer(response)
        except TimeoutError:
            raise Unavailable(f"the node at {self.url} did not answer within {timeout_ms // 1000} seconds: look at its status") from None
        except (aiohttp.ClientError, OSError):
            raise self.unreachable() from None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise self._not_a_node() from None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP session, opened when first used. Proxies of the environment are not asked: a node is on this machine."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_MS / 1000)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self._session

    def unreachable(self) -> Unavailable:
        """Return the error of a node that cannot be reached."""
        return Unavailable(f"the node at {self.url} cannot be reached: check that it runs and that the address is right")

    def _not_a_node(self) -> Rejected:
        return Rejected("client.not-a-node", f"what answers at {self.url} does not speak like a medchain node: check the address")

    # ---- transactions --------------------------------------------------------------------------------------------------------

    async def submit(self, transaction: Transaction) -> str:
        """Hand in a transaction; returns `accepted`, or `duplicate` for one the node has already, pooled or decided.

        Raises Rejected or Unavailable when the node did not take it.
        """
        try:
            result: str = (await self.call("tx.submit", transaction=transaction.raw))["result"]
        except Rejected as refusal:
            if refusal.code != DECIDED:
                raise
            return "duplicate"  # an answer was lost and the block was quicker than the second try
        return result

    async def wait(self, transaction_id: bytes, timeout_ms: int) -> dict[str, Any]:
        """Return the status of a transaction once it is decided or expired, or as it is after `timeout_ms`."""
        status: dict[str, Any] = await self.call("tx.wait", id=transaction_id, timeout_ms=max(0, min(timeout_ms, methods.WAIT_MS_MAX)))
        return status

    # ---- the network ---------------------------------------------------------------------------------------------------------

    async def facts(self) -> NetworkFacts:
        """Return what signing for this network needs; asked once. Raises Rejected `client.other-network`."""
        if self._facts is None:
            answer = await self.call("chain.genesis")
            genesis = self._pinned or Genesis.from_json(text_of(answer, "document"))
            if genesis.digest() != bytes_of(answer, "digest"):
                raise Rejected("client.other-network", "the node is not of the network of this genesis document: check --at and --genesis")
            parameters = (await self.call("chain.params"))["parameters"]
            window = parameters.get("expiry_window_blocks") if isinstance(parameters, dict) else None
            if type(window) is not int or not 0 < window <= limits.EXPIRY_WINDOW_BLOCKS_HARD_MAX:
                raise self._not_a_node()
            self._facts = NetworkFacts(genesis, genesis.domain(), window)
        return self._facts

    async def head_height(self) -> int:
        """Return the height of the newest block the node has."""
        return uint_of(await self.call("chain.head"), "height")

    async def proven_state(self, key: bytes) -> StateFacts:
        """Return what the state says under `key` at the node's head, checked under a certificate with the genesis document.

        Raises Rejected (`proof.*`, `client.false-answer`) when the node's proof does not hold.
        """
        return verify_state_proof(await self.state_proof(key), (await self.facts()).genesis)

    async def state_proof(self, key: bytes) -> bytes:
        """Return a proof file of what the state says under `key` at the node's head; nothing of it is checked yet."""
        answer = await self.call("state.get", key=key)
        value = answer.get("value") if isinstance(answer, dict) else None
        proof = StateFileProof(
            header=Header.decode(bytes_of(answer, "header")),
            certificate=Certificate.decode(bytes_of(answer, "certificate", 64 * 1024)),
            key=key,
            value=None if value is None else bytes_of(answer, "value", VALUE_BYTES_MAX),
            proof=StateProof.decode(bytes_of(answer, "proof", PROOF_BYTES_MAX)),
        )
        return proof.encode()


def _timeout_ms(method: str, params: Mapping[str, Any]) -> int:
    known = METHODS[method]
    if known.served_by == methods.CUSTODIAN:
        return CUSTODIAN_TIMEOUT_MS
    waits_ms = next((params.get(param.name, param.default) for param in known.params if param.name == "timeout_ms"), 0)
    return CALL_TIMEOUT_MS + int(waits_ms)


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer. Raises Malformed when it is larger than any answer."""
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise Malformed(f"the node's answer is larger than {ANSWER_BYTES_MAX} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def raise_error(error: Any) -> NoReturn:
    """Raise what an error object says, as the family it was on the node.

    JSON-RPC carries {code: number, message, data: {code, retry_after_ms}}, the routes beside it {code: text, message, retry_after_ms}.
    """
    if not isinstance(error, dict):
        raise Malformed("the node answered with an error that is none")
    number = error.get("code")
    data = error if isinstance(number, str) else error.get("data")
    code, retry_after_ms = _code_of(data)
    message = _sentence_of(error.get("message"))
    if number == methods.REJECTED or (isinstance(number, str) and code not in (Malformed.code, Unavailable.code) and not retry_after_ms):
        raise Rejected(code or "client.not-a-node", message)
    if number in (methods.UNAVAILABLE, methods.INTERNAL_ERROR) or code == Unavailable.code or retry_after_ms:
        later = Unavailable(message, retry_after_ms)
        later.code = code or later.code
        raise later
    if number == methods.METHOD_NOT_FOUND:
        raise Rejected("client.not-a-node", "the node does not know this method: node and client are of different versions")
    raise Malformed(message)


def _code_of(data: Any) -> tuple[str, int]:
    """Return (stable code or nothing, hint in milliseconds)."""
    if not isinstance(data, dict):
        return "", 0
    code, retry_after_ms = data.get("code"), data.get("retry_after_ms")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        code = ""
    return code, retry_after_ms if type(retry_after_ms) is int and 0 < retry_after_ms <= RETRY_MS_MAX else 0


def _sentence_of(message: Any) -> str:
    """Return what a node says, bounded and printable: it is shown on a terminal."""
    if not isinstance(message, str) or not message:
        return "the node gave no reason"
    return "".join(character for character in message[:SENTENCE_CHARACTERS_MAX] if character.isprintable())


def bytes_of(answer: Any, name: str, bytes_max: int = limits.TRANSACTION_BYTES_MAX) -> bytes:
    """Return the bytes under a name of a node's answer. Raises Malformed."""
    return read_hex(_member(answer, name), name, bytes_max)


def digest_of(answer: Any, name: str) -> bytes:
    """Return the 32 bytes under a name of a node's answer. Raises Malformed."""
    data = bytes_of(answer, name, limits.DIGEST_BYTES)
    if len(data) != limits.DIGEST_BYTES:
        raise Malformed(f"{name} in the node's answer must have {limits.DIGEST_BYTES} bytes")
    return data


def uint_of(answer: Any, name: str) -> int:
    """Return the whole number under a name of a node's answer. Raises Malformed."""
    value = _member(answer, name)
    if type(value) is not int or not 0 <= value <= methods.UINT_MAX:
        raise Malformed(f"{name} in the node's answer must be a whole number")
    return value


def text_of(answer: Any, name: str) -> str:
    """Return the text under a name of a node's answer. Raises Malformed."""
    value = _member(answer, name)
    if type(value) is not str:
        raise Malformed(f"{name} in the node's answer must be text")
    return value


def list_of(answer: Any, name: str) -> list[Any]:
    """Return the list under a name of a node's answer. Raises Malformed."""
    value = _member(answer, name)
    if type(value) is not list:
        raise Malformed(f"{name} in the node's answer must be a list")
    return value


def _member(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise Malformed(f"the node's answer lacks {name}")
    return answer[name]


async def all_pages(client: NodeClient, method: str, items: str, **params: Any) -> list[Any]:
    """Return the items of every page of a list method, in order. Raises Malformed when the cursor stands still."""
    found: list[Any] = []
    after: bytes | None = None
    while True:
        page = await client.call(method, **params, after=after)
        found += list_of(page, items)
        if page.get("next") is None:
            return found
        following = bytes_of(page, "next", methods.STATE_KEY_BYTES_MAX)
        if following == after:
            raise Malformed("the node's list does not come to an end")
        after = following
