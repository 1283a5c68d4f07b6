"""A real network with hands on it: four or more `medchain` processes, and what can happen to each.

Kill, stand still, full disk, wrong clock, cut lines, a liar in a hospital's place. Nothing here pretends: a killed node gets SIGKILL, one
that stands still SIGSTOP, a full disk is the system's refusal to let a file grow. Knows no load and measures nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from medchain.bench import usage
from medchain.bench.relay import Relays
from medchain.bench.vaults import fill_vaults
from medchain.errors import Rejected, Unavailable
from medchain.node.home import load_genesis
from medchain.testnet import plan as plans
from medchain.testnet.launch import NODE_PROGRAM, Testnet, ask, poll
from medchain.testnet.plan import HOST, Seat

LIAR_PROGRAM: Final = ("medchain.bench.liar",)
READY_SECONDS: Final = 60.0
AGREE_SECONDS: Final = 60.0
"""Longer than any recovery that is still good: what takes so long is a failure, told as one."""
ANSWER_SECONDS: Final = 10.0
"""For one question: a node on a machine that does other things as well may take seconds."""
WATCH_SECONDS: Final = 2.0
"""For one of many small questions: the next one tells as much."""


class Line:
    """One kept connection to a node's RPC listener, for many small questions."""

    def __init__(self, port: int, timeout_s: float = WATCH_SECONDS) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, **params: Any) -> Any:
        """Return the answer, None when the node gives none (it is down, stands still, or refuses)."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(HOST, self._port, timeout=self._timeout_s)
            self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
            return json.loads(self._connection.getresponse().read()).get("result")
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            return None

    def close(self) -> None:
        """End the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Network(AbstractContextManager["Network"]):
    """A network in a folder of its own; made on entering, started by `start`, gone without a trace of a process on leaving."""

    def __init__(
        self,
        folder: Path,
        hospitals: int = 4,
        *,
        has_relays: bool = False,
        program: Sequence[str] = NODE_PROGRAM,
        options: Sequence[str] = (),
    ) -> None:
        """`has_relays`: connections between hospitals go through lines that can be cut (`relays`).

        `program` runs another module with the same options in place of a plain node, and gets `options` at each start.
        """
        self._folder = folder
        self._hospitals = hospitals
        self._has_relays = has_relays
        self._program = program
        self._options = tuple(options)
        self._stack = ExitStack()
        self._testnet: Testnet | None = None
        self._relays: Relays | None = None
        self._name_of: dict[str, str] = {}
        """Consensus key, as answers show it → name."""

    def __enter__(self) -> Self:
        self._testnet = Testnet.open_or_make(self._folder, self._hospitals, 0)
        self._stack.callback(self.stop_hard)
        if self._has_relays:
            seats = self.testnet.plan.seats
            self._relays = self._stack.enter_context(Relays({seat.name: (HOST, seat.peer_port) for seat in seats}))
        fill_vaults(seat.home.vault_folder for seat in self.testnet.plan.seats)
        genesis = load_genesis(self.testnet.plan.genesis_file)
        self._name_of = {hospital.consensus_key.hex(): hospital.name for hospital in genesis.hospitals}
        for name in self.names:
            self.set(name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    # ---- facts -----------------------------------------------------------------------------------------------------------------

    @property
    def testnet(self) -> Testnet:
        """The processes. Raises Unavailable outside the context."""
        if self._testnet is None:
            raise Unavailable("the network is not made yet")
        return self._testnet

    @property
    def relays(self) -> Relays:
        """The lines. Raises Unavailable for a network without relays."""
        if self._relays is None:
            raise Unavailable("this network's hospitals speak directly: make it with relays")
        return self._relays

    @property
    def names(self) -> list[str]:
        """Names of the hospitals."""
        return [seat.name for seat in self.testnet.plan.seats]

    @property
    def faults(self) -> int:
        """How many hospitals may be faulty."""
        return (len(self.names) - 1) // 3

    def seat(self, name: str) -> Seat:
        """Return the seat of a hospital."""
        return self.testnet.plan.seat(name)

    def ask(self, name: str, method: str, **params: Any) -> Any:
        """Return a node's answer. Raises Rejected or Unavailable."""
        return ask(self.seat(name).rpc_port, method, ANSWER_SECONDS, **params)

    def status(self, name: str) -> dict[str, Any] | None:
        """Return what node.status answers, None when the node does not."""
        try:
            found: dict[str, Any] = self.ask(name, "node.status")
        except (Rejected, Unavailable):
            return None
        return found

    def height(self, name: str) -> int:
        """Return a node's height, -1 when it does not answer."""
        status = self.status(name)
        return -1 if status is None else int(status["height"])

    def primary(self, at: str) -> str | None:
        """Return who leads the height being decided, as a node sees it; None when it does not answer."""
        status = self.status(at)
        if status is None:
            return None
        return self._name_of.get(status["agreement"].get("primary"))

    def cpu_seconds(self, names: Iterable[str] | None = None) -> float:
        """Return the processor time that the running processes of these hospitals (all by default) have used since they began."""
        total = 0.0
        for name in names or self.names:
            process = self.testnet.process_of(name)
            if process is not None:
                with contextlib.suppress(OSError):
                    total += usage.cpu_seconds(process)
        return total

    # ---- processes -------------------------------------------------------------------------------------------------------------

    def set(self, name: str, settings: dict[tuple[str, str], str | int] | None = None) -> None:
        """Give a hospital settings of its own from its next start on; None = those it began with."""
        chosen = dict(settings or {})
        if self._relays is not None:
            chosen["peers", "dial"] = self._relays.dialled_by(name)
        plans.write_settings(self.seat(name), chosen)

    def start(self, names: Iterable[str] | None = None, *, liar: str | None = None, options: Sequence[str] = ()) -> None:
        """Start hospitals (all by default) without waiting; `liar` names a kind of bench/liar.py to put in their place."""
        if liar is None:
            self.testnet.start(names, options=[*self._options, *options], program=self._program)
        else:
            self.testnet.start(names, options=["--kind", liar, *options], program=LIAR_PROGRAM)

    def wait_ready(self, names: Iterable[str] | None = None) -> None:
        """Wait until these hospitals (all by default) are connected and may vote. Raises Rejected, Unavailable."""
        self.testnet.wait_ready(names, timeout_s=READY_SECONDS)

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Stop hospitals in good order."""
        self.testnet.stop(names)

    def kill(self, name: str) -> float:
        """End a hospital with SIGKILL, as a power cut would; return the monotonic moment."""
        began = time.monotonic()
        self.testnet.kill(name)
        return began

    def freeze(self, name: str) -> float:
        """Let a hospital stand still with all its connections, as a paused virtual machine does; return the monotonic moment."""
        self._signal(name, signal.SIGSTOP)
        return time.monotonic()

    def thaw(self, name: str) -> float:
        """Let it go on; return the monotonic moment."""
        moment = time.monotonic()
        self._signal(name, signal.SIGCONT)
        return moment

    def fill_disk(self, name: str) -> float:
        """Let no file of a hospital grow any more, as on a full disk; lasts until its process ends. Return the monotonic moment."""
        process = self.process(name)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return time.monotonic()

    def stop_hard(self) -> None:
        """End every process, whatever state it is in."""
        for name in self.names:
            process = self.testnet.process_of(name)
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)  # each node leads a process group of its own; reaches stopped ones too
        self.testnet.stop()

    def process(self, name: str) -> int:
        """Return the process id of a hospital. Raises Unavailable when it does not run."""
        process = self.testnet.process_of(name)
        if process is None:
            raise Unavailable(f"hospital {name} does not run")
        return process

    def _signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.process(name), number)

    # ---- waiting ---------------------------------------------------------------------------------------------------------------

    def wait_height(self, names: Iterable[str], height: int, timeout_s: float = AGREE_SECONDS) -> bool:
        """Wait until all these hospitals have decided `height`; return whether they did in time."""
        lines = {name: Line(self.seat(name).rpc_port) for name in names}
        try:

            def is_there() -> bool:
                heads = [line.ask("chain.head") for line in lines.values()]
                return all(head is not None and head["height"] >= height for head in heads)

            return poll(is_there, timeout_s)
        finally:
            for line in lines.values():
                line.close()

    def highest(self, names: Iterable[str] | None = None) -> int:
        """Return the highest block that one of these hospitals (all by default) has decided."""
        return max(self.height(name) for name in names or self.names)

    def is_same_block(self, names: Iterable[str], height: int) -> bool:
        """Return whether these hospitals have the same block, and so the same state root, at a height. Raises Rejected, Unavailable."""
        return len({self.ask(name, "chain.header", height=height)["digest"] for name in names}) == 1
