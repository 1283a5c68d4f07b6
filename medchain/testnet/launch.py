"""Running a test network: every hospital a process of its own, detached, its output in its folder.

A node is found again by its locked node.pid (node/pidfile.py), so any later command can stop, kill or restart it. This module asks the
nodes over their RPC as any client would; it knows no key.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import medchain
from medchain.chain.parameters import Parameters
from medchain.errors import Rejected, Unavailable
from medchain.node.home import load_genesis
from medchain.node.pidfile import running_process
from medchain.testnet import plan as plans
from medchain.testnet.plan import HOST, Plan, Seat

READY_SECONDS: Final = 60.0
"""A loaded machine with sixteen hospitals takes some twenty seconds."""
STOP_SECONDS: Final = 10.0
"""Given to a node that was asked to stop; then it is killed."""
POLL_SECONDS: Final = 0.02
ANSWER_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 1024 * 1024
OUTPUT_NAME: Final = "node.out"
NODE_PROGRAM: Final = ("medchain", "node", "start")
"""Module and words that run a node; each takes --home, --passphrase-file and options."""
_OVERRIDES_KEPT_OUT: Final = ("MEDCHAIN_RPC_LISTEN", "MEDCHAIN_PEERS_LISTEN", "MEDCHAIN_PASSPHRASE", "MEDCHAIN_AT")
"""Of the environment: each node has its own addresses, and the network its own passphrase."""


@dataclass(frozen=True, slots=True)
class SeatStatus:
    """How one hospital is."""

    name: str
    rpc: str
    home: str
    process: int | None
    """Process id, None when it does not run."""
    status: dict[str, Any] | None
    """The answer of node.status, None when it does not answer."""

    def to_value(self) -> dict[str, Any]:
        """Return the JSON form; what node.status says stands beside the rest."""
        facts: dict[str, Any] = {"name": self.name, "rpc": self.rpc, "home": self.home, "process": self.process}
        names = ("height", "digest", "state_root", "peers", "may_vote", "is_catching_up")
        return facts | {name: None if self.status is None else self.status.get(name) for name in names}


class Testnet:
    """A network in its folder."""

    __test__ = False  # pytest takes every class named Test... for a collection of tests

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def open_or_make(
        cls, folder: Path, hospitals: int | None = None, base_port: int | None = None, parameters: Parameters | None = None
    ) -> Testnet:
        """Return the network in `folder`, made there first if there is none (four hospitals by default).

        Raises Rejected: testnet.*, home.*; Malformed.
        """
        folder = folder.resolve()
        if (folder / plans.FILE_NAME).exists():
            found = cls(plans.load_plan(folder))
            count = len(found.plan.seats)
            if hospitals not in (None, count):
                raise Rejected("testnet.other-size", f"{folder} holds {count} hospitals: use it as it is, or choose another folder.")
            found._check_options(base_port, parameters)
            return found
        port = plans.BASE_PORT if base_port is None else base_port
        plan = plans.new_plan(folder, plans.HOSPITALS_MIN if hospitals is None else hospitals, port)
        plans.write_network(plan, parameters)
        return cls(plan)

    @classmethod
    def open(cls, folder: Path) -> Testnet:
        """Return the network in `folder`. Raises Rejected testnet.missing, Malformed."""
        return cls(plans.load_plan(folder.resolve()))

    def _check_options(self, base_port: int | None, parameters: Parameters | None) -> None:
        """Refuse options that a network made before cannot follow: ignored, they would be taken for obeyed."""
        if base_port not in (None, 0, self.plan.seats[0].rpc_port):
            raise Rejected("testnet.other-options", f"{self.plan.folder} holds a network at other ports: leave --base-port out.")
        if parameters is not None and parameters != load_genesis(self.plan.genesis_file).parameters:
            raise Rejected("testnet.other-options", f"{self.plan.folder} holds a network with other parameters: leave --parameter out.")

    # ---- processes -----------------------------------------------------------------------------------------------------------

    def start(
        self, names: Iterable[str] | None = None, *, options: Sequence[str] = (), program: Sequence[str] = NODE_PROGRAM
    ) -> None:
        """Start the processes of these hospitals (of all by default) without waiting for them; `options` go to `medchain node start`.

        `program` runs another module in its place, which must take the same options: a drill.
        Raises Rejected: testnet.running, testnet.port-taken, testnet.unknown-hospital.
        """
        seats = self._chosen(names)
        for seat in seats:
            if self.process_of(seat.name) is not None:
                raise Rejected("testnet.running", f"Hospital {seat.name} of {self.plan.folder} runs already.")
        plans.check_ports(seats)
        try:
            for seat in seats:
                self._children[seat.name] = self._spawn(seat, options, program)
        except OSError:
            self.stop(seat.name for seat in seats)
            raise

    def process_of(self, name: str) -> int | None:
        """Return the process id of a hospital's node, None when it does not run."""
        return running_process(self.plan.seat(name).home.pid_file)

    def start_missing(self) -> list[str]:
        """Start the hospitals that do not run; return their names. Raises Rejected as `start`, testnet.running when all run."""
        missing = self.not_running()
        if not missing:
            raise Rejected("testnet.running", f"The network in {self.plan.folder} runs already: stop it with `medchain testnet down`.")
        self.start(missing)
        return missing

    def not_running(self) -> list[str]:
        """Return the names of the hospitals whose node does not run."""
        return [seat.name for seat in self.plan.seats if self.process_of(seat.name) is None]

    def wait_ready(self, names: Iterable[str] | None = None, *, timeout_s: float = READY_SECONDS) -> None:
        """Wait until these hospitals answer, are connected to all that run, and may vote.

        Raises Rejected testnet.node-ended with the node's own sentence, Unavailable after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        waiting = {seat.name: seat for seat in self._chosen(names)}
        while waiting:
            for name, seat in list(waiting.items()):
                self._check_alive(seat)
                if self._is_ready(seat):
                    del waiting[name]
            if waiting and time.monotonic() > deadline:
                what = ", ".join(waiting)
                raise Unavailable(f"not ready within {timeout_s:.0f} s: {what}; see {OUTPUT_NAME} and node.log in the folder of each")
            if waiting:
                time.sleep(POLL_SECONDS)

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Ask these hospitals (all by default) to stop, and wait until they have; one that does not within ten seconds is killed."""
        seats = self._chosen(names)
        self._signal(seats, signal.SIGTERM)
        if not self._wait_gone(seats, STOP_SECONDS):
            self._signal(seats, signal.SIGKILL)
            self._wait_gone(seats, STOP_SECONDS)
        self._reap(seats)

    def kill(self, name: str) -> int:
        """End one hospital's process with SIGKILL, as a power cut would; return its id. Raises Rejected testnet.not-running."""
        seat = self.plan.seat(name)
        process = self.process_of(name)
        if process is None:
            raise Rejected("testnet.not-running", f"Hospital {name} of {self.plan.folder} does not run.")
        os.kill(process, signal.SIGKILL)
        self._wait_gone([seat], STOP_SECONDS)
        self._reap([seat])
        return process

    def restart(self, name: str) -> None:
        """Stop one hospital if it runs, and start it again; does not wait for it to be ready."""
        self.stop([name])
        self.start([name])

    def status(self) -> list[SeatStatus]:
        """Return how every hospital is."""
        return [
            SeatStatus(seat.name, seat.rpc_url, str(seat.home.path), self.process_of(seat.name), self._status_of(seat))
            for seat in self.plan.seats
        ]

    def facts(self, genesis_digest: bytes) -> dict[str, Any]:
        """Return what `testnet up --detach` answers."""
        rows = [
            {"name": seat.name, "rpc": seat.rpc_url, "peers": f"{HOST}:{seat.peer_port}", "home": str(seat.home.path),
             "process": self.process_of(seat.name)}
            for seat in self.plan.seats
        ]  # fmt: skip
        return {"hospitals": rows, "genesis": genesis_digest.hex(), "genesis_file": str(self.plan.genesis_file)}

    # ---- one process ---------------------------------------------------------------------------------------------------------

    def _spawn(self, seat: Seat, options: Sequence[str], program: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name not in _OVERRIDES_KEPT_OUT}
        package_parent = str(Path(medchain.__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_parent, environment.get("PYTHONPATH"))))
        command = [sys.executable, "-P", "-m", *program, "--home", str(seat.home.path)]
        command += ["--passphrase-file", str(self.plan.passphrase_file), *options]
        with (seat.home.path / OUTPUT_NAME).open("wb") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment, cwd=seat.home.path
            )

    def _check_alive(self, seat: Seat) -> None:
        child = self._children.get(seat.name)
        if child is not None and child.poll() is not None:
            raise Rejected("testnet.node-ended", f"Hospital {seat.name} ended: {self._last_words(seat)}")

    def _last_words(self, seat: Seat) -> str:
        lines = (seat.home.path / OUTPUT_NAME).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing; see {seat.home.log_file}"

    def _is_ready(self, seat: Seat) -> bool:
        status = self._status_of(seat)
        if status is None or not status["may_vote"] or status["is_catching_up"]:
            return False
        running = [other for other in self.plan.seats if self.process_of(other.name) is not None]
        return len(status["peers"]) >= len(running) - 1

    def _status_of(self, seat: Seat) -> dict[str, Any] | None:
        try:
            status: dict[str, Any] = ask(seat.rpc_port, "node.status")
        except (Rejected, Unavailable):
            return None
        return status

    def _signal(self, seats: Iterable[Seat], number: signal.Signals) -> None:
        for seat in seats:
            process = self.process_of(seat.name)
            child = self._children.get(seat.name)
            if process is None and child is not None and child.poll() is None:
                process = child.pid  # started, but not yet so far as to hold its pid file
            if process is not None:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                    os.kill(process, number)

    def _wait_gone(self, seats: Iterable[Seat], timeout_s: float) -> bool:
        return poll(lambda: not any(self._lives(seat) for seat in seats), timeout_s)

    def _lives(self, seat: Seat) -> bool:
        child = self._children.get(seat.name)
        return self.process_of(seat.name) is not None or (child is not None and child.poll() is None)

    def _reap(self, seats: Iterable[Seat]) -> None:
        for seat in seats:
            child = self._children.get(seat.name)
            if child is not None and child.poll() is not None:
                del self._children[seat.name]

    def _chosen(self, names: Iterable[str] | None) -> list[Seat]:
        return list(self.plan.seats) if names is None else [self.plan.seat(name) for name in names]


def poll(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether `condition` became true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def ask(port: int, method: str, timeout_s: float = ANSWER_SECONDS, **params: Any) -> Any:
    """Ask a node of this machine one question over JSON-RPC; parameters and answer are JSON values. Raises Rejected or Unavailable."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read(ANSWER_BYTES_MAX))
        if "error" not in answer:
            return answer["result"]
        code, message = str(answer["error"]["data"]["code"]), str(answer["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError):
        raise Unavailable(f"no node answers at {HOST}:{port}") from None
    finally:
        connection.close()
    raise Rejected(code, message)
