"""One hospital's node, put together: the only module that knows every adapter.

Starts from the inside out (store, keys, engine, loop, peers, clients, custodian) and stops the other way round. What each part does stands
in its own file.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, TypeVar

from medchain import __version__, telemetry
from medchain.consensus.messages import PrePrepare
from medchain.engine.engine import Engine
from medchain.engine.ready import BlockDecided, Event, Received
from medchain.engine.verification import Verifier
from medchain.errors import InvariantBroken, MedchainError, Rejected, Unavailable
from medchain.network.connection import Line
from medchain.network.peers import PeerNetwork
from medchain.node import home as homes
from medchain.node.clock import Clock, ClockWatch
from medchain.node.custodian import Custodian, CustodianLimits
from medchain.node.desk import Desk
from medchain.node.home import NodeHome, OpenedHome
from medchain.node.logfile import LogFile
from medchain.node.pidfile import PidFile
from medchain.node.recorder import Recorder
from medchain.node.replicas import ReplicaLimits
from medchain.node.runtime import Core, Pace, Runtime
from medchain.rpc.limits import RpcLimits
from medchain.rpc.server import RpcServer
from medchain.telemetry import PROCESS_COUNTERS, log_event
from medchain.vault.blobs import BlobLimits, BlobStore
from medchain.vault.wraps import WrapStore

Part = TypeVar("Part")

CHALLENGE_BYTES: Final = 32
COLLECTOR_THRESHOLDS: Final = (200_000, 10, 20)
"""Of the collector's generations. A full node holds some hundred thousand live objects (pool, newest blocks, remembered rows), few of
them in cycles; with Python's (700, 10, 10) looking at them again and again was a seventh of all processor time."""
LOOP_ALIVE_MS: Final = 2_000
"""A loop that has not turned for so long is not ready: it turns at least ten times a second."""


Disguise = Callable[[Engine, OpenedHome], Core]
"""Puts something in the engine's place that the loop drives instead, given the engine: how drills make a hospital lie."""


class Node:
    """A node in the folder `home`. `start` and `stop` once each, or `run_until_stopped`."""

    def __init__(
        self,
        home: NodeHome,
        passphrase: Callable[[], str],
        *,
        may_be_empty: bool = False,
        disguise: Disguise | None = None,
        line: Line | None = None,
    ) -> None:
        """`passphrase` is asked for after the store is locked; `may_be_empty`: see home.open_home.

        `disguise` and `line` (see PeerNetwork) are for drills only.
        """
        self._home = home
        self._disguise = disguise
        self._line = line
        self._passphrase = passphrase
        self._may_be_empty = may_be_empty
        self._stack = AsyncExitStack()
        self._loop_task: asyncio.Task[None] | None = None
        self._clock = Clock()
        self._clock_watch: ClockWatch | None = None
        self._is_clock_off = False
        self._engine: Engine | None = None
        self._opened: OpenedHome | None = None
        self._runtime: Runtime | None = None
        self._network: PeerNetwork | None = None
        self._rpc: RpcServer | None = None
        self._has_failed = False

    # ---- facts ---------------------------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Height of the newest decided block; 0 before the store is open."""
        return 0 if self._engine is None else self._engine.head.height

    @property
    def rpc_url(self) -> str:
        """Where clients find the node once it has started."""
        return _made(self._rpc).url

    # ---- start and stop ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything. Raises a typed error with a sentence; then nothing is left running or locked."""
        try:
            await self._start()
        except BaseException as error:
            self._tell_failure(error)
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        opened = self._opened = await asyncio.to_thread(homes.open_home, self._home, self._passphrase, may_be_empty=self._may_be_empty)
        stack = self._stack
        pid_file = PidFile(self._home.pid_file)
        stack.callback(pid_file.release)  # last of all: who waits for the end of this process may then start the next
        stack.callback(opened.store.close)
        pid_file.hold()
        self._begin_log(opened)
        log_event("node.starting", version=__version__)
        self._set_clock(opened)
        verifier = Verifier(opened.genesis.domain())
        engine = self._engine = await asyncio.to_thread(
            Engine,
            genesis=opened.genesis,
            store=opened.store,
            consensus_key=opened.keys.consensus.signing,
            verifier=verifier,
            challenge=secrets.token_bytes(CHALLENGE_BYTES),
            pool_bytes_max=opened.config.runtime_pool_bytes_max,
        )
        faults, limit_ms = engine.chain.validators.faults_tolerated, engine.chain.parameters.clock_bound_ms // 2
        self._clock_watch = ClockWatch(opened.hospital.consensus_key, faults, limit_ms)
        core: Core = engine if self._disguise is None else self._disguise(engine, opened)
        recorder = self._make_recorder(opened)
        desk = Desk(self._post, accuse=self._accuse, alarm=_tell_alarm, failed=self._fail)
        custodian = await asyncio.to_thread(self._make_custodian, opened, desk)
        desk.servers.update(custodian.servers)
        desk.observers += [_tell_decided, custodian.observe]
        runtime = self._runtime = self._make_runtime(opened, core, verifier, desk)
        network = self._network = self._make_network(opened, custodian, recorder)
        rpc = self._rpc = self._make_rpc(opened, desk, custodian, recorder)
        custodian.open_peer = network.open
        self._loop_task = asyncio.create_task(runtime.run(), name="the loop")
        stack.push_async_callback(self._stop_loop)
        await network.start()
        stack.push_async_callback(network.stop)
        await rpc.start()
        stack.push_async_callback(rpc.stop)
        stack.callback(desk.close)
        await custodian.start()
        stack.push_async_callback(custodian.stop)
        gc.collect()
        gc.freeze()  # what lives from the start lives to the end: the collector need not look at it again (figures.md)
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        log_event("node.started", height=engine.head.height)

    async def stop(self) -> None:
        """Stop everything in good order. Raises InvariantBroken when the loop had failed."""
        log_event("node.stopping")
        await self._stack.aclose()

    async def run_until_stopped(self) -> None:
        """Run until SIGTERM, SIGINT, a closed terminal or a failure of the loop, and stop. Raises what a start or the loop raises."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                loop.add_signal_handler(number, asked.set)
        starting = asyncio.ensure_future(self.start())
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            return
        try:
            starting.result()
            await asyncio.wait((waiting, _made(self._loop_task)), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        await self._finish()

    async def _finish(self) -> None:
        """Stop; when it was the loop that failed, say so in the log and raise its error."""
        task = _made(self._loop_task)
        failure = task.exception() if task.done() and not task.cancelled() else None
        if failure is not None:
            self._tell_failure(failure)
        await self.stop()
        if failure is not None:
            raise failure

    async def _stop_loop(self) -> None:
        task = _made(self._loop_task)
        _made(self._runtime).stop()
        await asyncio.gather(task, return_exceptions=True)

    # ---- parts ---------------------------------------------------------------------------------------------------------------

    def _begin_log(self, opened: OpenedHome) -> None:
        """Send events to node.log, and in readable form to a terminal when one watches."""
        file = None if sys.stderr.isatty() else LogFile(self._home.log_file, opened.config.log_bytes_max)
        number = opened.genesis.hospitals.index(opened.hospital)
        telemetry.configure(file or sys.stderr, level=opened.config.log_level, node=number)
        self._stack.callback(self._end_log, file)

    def _end_log(self, file: LogFile | None) -> None:
        if not self._has_failed:
            log_event("node.stopped", height=self.height)
        telemetry.configure(None)
        if file is not None:
            file.close()

    def _set_clock(self, opened: OpenedHome) -> None:
        """Shift the clock as a drill asks, and say so: a forgotten drill must not look like a broken machine."""
        offset_ms = opened.config.debug_clock_offset_ms
        self._clock = Clock(offset_ms)
        if offset_ms:
            _tell_alarm("node.clock-shifted", f"the clock is shifted by {offset_ms} ms for a drill: remove debug.clock_offset_ms to end it")

    def _tell_failure(self, error: BaseException) -> None:
        self._has_failed = True
        sentence = str(error) if isinstance(error, MedchainError) else None
        log_event("node.failed", level="error", kind=type(error).__name__, sentence=sentence)

    def _make_recorder(self, opened: OpenedHome) -> Recorder | None:
        directory = opened.config.debug_record_traffic_directory
        if directory is None:
            return None
        recorder = Recorder(directory)
        self._stack.callback(recorder.close)
        return recorder

    def _make_runtime(self, opened: OpenedHome, core: Core, verifier: Verifier, desk: Desk) -> Runtime:
        config = opened.config
        return Runtime(
            core=core,
            disk=opened.store,
            verifier=verifier,
            network=opened.genesis.domain(),
            send=lambda envelopes: _made(self._network).send(envelopes),
            answer=desk.answer,
            clock=self._clock,
            pace=Pace(
                tick_ms=config.runtime_tick_ms,
                idle_tick_ms=config.runtime_idle_tick_ms,
                inbox_events_max=config.runtime_inbox_events_max,
                verifying_threads=config.runtime_verifying_threads,
            ),
            is_admissible=_made(self._engine).is_admissible,
        )

    def _make_custodian(self, opened: OpenedHome, desk: Desk) -> Custodian:
        config, identity, network = opened.config, opened.keys.organisation, opened.genesis.domain()
        folder = self._home.vault_folder
        try:
            blobs = BlobStore(folder, BlobLimits(config.vault_bytes_max, config.vault_disk_free_bytes_min))
            wraps = WrapStore(folder / "wraps", identity.opening, network)
        except Unavailable as error:  # a client may come again later; a node that starts has nothing to wait for
            raise Rejected("home.unusable", f"The vault {folder} cannot be used: {error.message}.") from None
        return Custodian(
            identity=identity,
            genesis=opened.genesis,
            network=network,
            desk=desk,
            blobs=blobs,
            wraps=wraps,
            clock=self._clock,
            failed=self._fail,
            limits=CustodianLimits(replicas=ReplicaLimits(at_once=config.vault_replications_at_once)),
        )

    def _make_network(self, opened: OpenedHome, custodian: Custodian, recorder: Recorder | None) -> PeerNetwork:
        return PeerNetwork(
            genesis=opened.genesis,
            network=opened.genesis.domain(),
            consensus_key=opened.keys.consensus.signing,
            certificate_path=self._home.tls_certificate_file,
            key_path=self._home.tls_key_file,
            passphrase=opened.passphrase,
            listen=opened.config.peers_listen,
            deliver=self._deliver,
            height=lambda: self.height,
            routes=custodian.peer_routes(),
            tap=None if recorder is None else recorder.peer_frame,
            line=self._line,
            counters=PROCESS_COUNTERS,
            room=lambda: _made(self._runtime).room(),
            endpoints=_dialled_at(opened),
            failed=self._fail,
            wall_clock_ms=self._clock.wall_ms,
        )

    def _make_rpc(self, opened: OpenedHome, desk: Desk, custodian: Custodian, recorder: Recorder | None) -> RpcServer:
        return RpcServer(
            listen=opened.config.rpc_listen,
            call=desk.call,
            routes=custodian.client_routes(),
            health=self._health,
            tap=None if recorder is None else recorder.rpc_body,
            limits=RpcLimits(in_flight_max=opened.config.rpc_in_flight_max),
            broken=lambda error: _made(self._runtime).fail(error),
        )

    # ---- joints --------------------------------------------------------------------------------------------------------------

    def _post(self, event: Event) -> bool:
        return _made(self._runtime).post(event)

    def _deliver(self, event: Event) -> None:
        """Take an event from a peer; one that finds no room is dropped and counted, the peer sends again what matters."""
        if isinstance(event, Received) and isinstance(event.message, PrePrepare):
            self._compare_clocks(event.peer, event.message)
        self._post(event)

    def _compare_clocks(self, peer: bytes, message: PrePrepare) -> None:
        """Look at the time of a fresh proposal that its proposer sent; say once that our clock is wrong."""
        header, watch = message.proposal.header, _made(self._clock_watch)
        if header.proposer != peer or header.view != message.view or header.height <= self.height:
            return
        watch.observe(peer, header.height, header.time_ms, self._clock.wall_ms())
        offset_ms = watch.offset_ms()
        if offset_ms and not self._is_clock_off:
            side = "ahead of" if offset_ms > 0 else "behind"
            _tell_alarm("node.clock-off", f"this node's clock is {abs(offset_ms)} ms {side} other hospitals': set it by NTP")
        self._is_clock_off = bool(offset_ms)

    def _accuse(self, peer: bytes, reason: str) -> None:
        _made(self._network).accuse(peer, reason)

    def _fail(self, error: Exception) -> None:
        """End the node because a part of it met a bug of ours."""
        _made(self._runtime).fail(error)

    def _health(self) -> Mapping[str, bool]:
        """Return what `/readyz` checks, by name; an idle chain is no fault (lessons.md: WeBASE-Front #891)."""
        opened, engine, network = _made(self._opened), _made(self._engine), _made(self._network)
        status = engine.status()
        loop_task = _made(self._loop_task)
        return {
            "loop": not loop_task.done() and _made(self._runtime).idle_ms() < LOOP_ALIVE_MS,
            "peers": len(network.connected) + 1 >= engine.chain.validators.quorum,
            "height": not status["is_catching_up"],
            "voting": bool(status["may_vote"]) or not status["is_validator"],
            "clock": not self._is_clock_off,
            "disk": shutil.disk_usage(self._home.data_folder).free >= opened.config.vault_disk_free_bytes_min,
        }


def _made(part: Part | None) -> Part:
    """Return a part that the start has made."""
    if part is None:
        raise InvariantBroken("a part of the node was used before it started")
    return part


def _dialled_at(opened: OpenedHome) -> dict[bytes, Sequence[str]]:
    """Return where hospitals are dialled that the settings name. Raises Rejected config.bad-value for one that is no member."""
    members = {hospital.name: hospital.consensus_key for hospital in opened.genesis.hospitals}
    chosen = opened.config.peers_dial
    for name in chosen:
        if name not in members:
            raise Rejected("config.bad-value", f"The setting peers.dial names {name!r}, which is no hospital of the network: correct it.")
    return {members[name]: (address,) for name, address in chosen.items()}


def _tell_alarm(code: str, message: str) -> None:
    log_event("node.alarm", level="error", code=code, sentence=message)


def _tell_decided(block: BlockDecided) -> None:
    log_event("chain.decided", level="debug", height=block.height, digest=block.digest.hex(), count=len(block.receipts))
