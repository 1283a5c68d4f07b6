"""What mutual TLS costs: the same bytes between two sockets of this machine with and without it, and a connection's beginning.

Nodes always speak TLS and have no switch against it, for it is by their certificates that hospitals know each other: a node without it
would be another program, reached by a way around the rule. So TLS is measured by itself, with a node's own credentials and settings, and
what it is of a transaction follows from the bytes that nodes sent for one in the base case. Knows no message.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Final

from medchain.bench.results import LOWER, Case, Measure
from medchain.bench.rounds import Bench
from medchain.network.tls import Credentials
from medchain.node.home import load_genesis
from medchain.testnet.launch import Testnet
from medchain.testnet.plan import HOST, Plan

FRAME_BYTES: Final = (1_000, 16_000)
"""A few votes, and a message of gossip under load."""
TOTAL_BYTES: Final = 16_000_000
"""Of one sample."""
HANDSHAKES: Final = 50
READ_BYTES: Final = 256 * 1024
GREETING: Final = b"ready"


@dataclass(frozen=True, slots=True)
class Contexts:
    """Both sides of a connection; None = plain TCP."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None


PLAIN: Final = Contexts(None, None)


def cases(bench: Bench, base: Case | None) -> list[Case]:
    """Measure handshakes and frames; with the base case at hand also what TLS is of a transaction."""
    with bench.place("tls") as folder:
        secured = contexts_of(Testnet.open_or_make(folder, None, 0).plan)
    samples = range(bench.size.windows)
    found = [
        Case(
            "tls-handshake", "a connection with mutual TLS is opened and closed, both ends together",
            {
                "cpu_secured": Measure("us", LOWER, tuple(asyncio.run(handshake_seconds(secured)) * 1e6 for _ in samples)),
                "cpu_plain": Measure("us", LOWER, tuple(asyncio.run(handshake_seconds(PLAIN)) * 1e6 for _ in samples)),
            },
        )
    ]  # fmt: skip
    extra_per_byte = 0.0
    for size in FRAME_BYTES:
        with_tls, without = (
            Measure("us", LOWER, tuple(asyncio.run(frame_seconds(contexts, size)) * 1e6 for _ in samples)) for contexts in (secured, PLAIN)
        )
        extra = Measure("us", LOWER, tuple(one - other for one, other in zip(with_tls.samples, without.samples, strict=True)))
        extra_per_byte = extra.median / size
        measures = {"cpu_secured": with_tls, "cpu_plain": without, "cpu_of_tls": extra}
        found.append(Case(f"tls-frame-{size}", f"a frame of {size:,} bytes goes through, both ends together", measures, {"bytes": size}))
    if base is not None:
        cost = tuple(sent * extra_per_byte for sent in base.measures["bytes_sent"].samples)
        share = tuple(one / base.measures["cpu"].median * 100 for one in cost)
        title = "TLS of a transaction and node in the base case, from the bytes that were sent for it"
        found.append(Case("tls-base", title, {"cpu_of_tls": Measure("us", LOWER, cost), "share_of_cpu": Measure("%", LOWER, share)}))
    return found


def contexts_of(plan: Plan) -> Contexts:
    """Return the contexts with which a network's second hospital dials its first."""
    secret = plan.passphrase_file.read_text(encoding="utf-8").strip()
    certificates = {hospital.name: hospital.certificate for hospital in load_genesis(plan.genesis_file).hospitals}
    first, second = plan.seats[:2]
    server, client = (Credentials(seat.home.tls_certificate_file, seat.home.tls_key_file, secret) for seat in (first, second))
    return Contexts(server.server_context([certificates[second.name]]), client.client_context(certificates[first.name]))


async def handshake_seconds(contexts: Contexts) -> float:
    """Return the processor time of opening and closing one connection, at both ends together."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)  # only now has it seen the client's certificate
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, HOST, 0, ssl=contexts.server)
    async with server:
        port = server.sockets[0].getsockname()[1]
        began = time.process_time()
        for _ in range(HANDSHAKES):
            reader, writer = await asyncio.open_connection(HOST, port, ssl=contexts.client)
            await reader.readexactly(len(GREETING))
            writer.close()
            await writer.wait_closed()
        return (time.process_time() - began) / HANDSHAKES


async def frame_seconds(contexts: Contexts, size: int) -> float:
    """Return the processor time of one frame on an open connection, at both ends together."""
    arrived = asyncio.Event()
    count = TOTAL_BYTES // size

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = (count + 1) * size
        while left and (data := await reader.read(READ_BYTES)):
            left -= len(data)
            if left == count * size:
                writer.write(GREETING)
        arrived.set()
        writer.close()

    frame = bytes(size)
    server = await asyncio.start_server(accept, HOST, 0, ssl=contexts.server)
    async with server:
        reader, writer = await asyncio.open_connection(HOST, server.sockets[0].getsockname()[1], ssl=contexts.client)
        writer.write(frame)
        await reader.readexactly(len(GREETING))
        began = time.process_time()
        for _ in range(count):
            writer.write(frame)
            await writer.drain()
        await arrived.wait()
        spent = time.process_time() - began
        writer.close()
        await writer.wait_closed()
    return spent / count
