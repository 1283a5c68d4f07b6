"""The files of a test network: keys, certificates, the genesis document and a home folder for every hospital.

    NET/testnet.json  genesis.json  passphrase  a/ ... d/ (node/home.py)  officers/a.key ...

One passphrase protects every key and lies beside the folders, never in them. This module starts no process.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
import socket
import string
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from medchain.chain.genesis import VALIDATOR, Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.crypto.keyfile import Identity, save_identity
from medchain.errors import Malformed, Rejected
from medchain.node import home as homes
from medchain.node.home import Keys, NodeHome

HOST: Final = "127.0.0.1"
HOSPITALS_MIN: Final = 4
"""Fewer cannot bear one that fails."""
HOSPITALS_MAX: Final = 16
"""As many as the benchmark compares with four; a small machine still runs so many processes. Real networks may be larger."""
BASE_PORT: Final = 7100
PEER_PORT_OFFSET: Final = 100
"""RPC listeners at base port + i, peer listeners at base port + 100 + i."""
FILE_NAME: Final = "testnet.json"
PASSPHRASE_FILE_NAME: Final = "passphrase"
FILE_BYTES_MAX: Final = 64 * 1024
_DOCUMENT_NAMES: Final = ("medchain_testnet", "chain_id", "hospitals")
_SEAT_NAMES: Final = ("name", "rpc_port", "peer_port")
_CHOSEN_PORTS: Final = tuple(base for base in range(20_000, 32_000, 20) if base // 100 % 2 == 0)
"""Bases tried when the caller lets us choose: below the ports that systems hand out for outgoing connections, so far apart that the largest
networks at two of them share no port, and so many that networks which choose at the same moment rarely choose alike (the ports are bound
only a second later, when the keys are made)."""

REFUSALS: Final[dict[str, str]] = {
    "testnet.hospitals": "A test network has four to sixteen hospitals.",
    "testnet.folder-in-use": "The folder holds something else than a test network.",
    "testnet.other-size": "The folder holds a test network of another size.",
    "testnet.other-options": "The folder holds a test network with other ports or parameters than were asked for.",
    "testnet.missing": "There is no test network in the folder.",
    "testnet.port-taken": "A port that the network needs is taken by another program.",
    "testnet.unknown-hospital": "The test network has no hospital of this name.",
    "testnet.node-ended": "A node ended instead of becoming ready.",
    "testnet.not-running": "The node does not run.",
    "testnet.running": "A node of the network runs already.",
}


@dataclass(frozen=True, slots=True)
class Seat:
    """One hospital of the network: its name, folder and ports."""

    name: str
    home: NodeHome
    rpc_port: int
    peer_port: int

    @property
    def rpc_url(self) -> str:
        """Where clients find it."""
        return f"http://{HOST}:{self.rpc_port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A network's folder and seats."""

    folder: Path
    chain_id: str
    seats: tuple[Seat, ...]

    @property
    def genesis_file(self) -> Path:
        """The founding document."""
        return self.folder / "genesis.json"

    @property
    def passphrase_file(self) -> Path:
        """The test network's one passphrase."""
        return self.folder / PASSPHRASE_FILE_NAME

    def officer_key_file(self, name: str) -> Path:
        """Key file of a hospital's officer."""
        return self.folder / "officers" / f"{name}.key"

    def seat(self, name: str) -> Seat:
        """Return the seat of a hospital. Raises Rejected testnet.unknown-hospital."""
        for seat in self.seats:
            if seat.name == name:
                return seat
        names = ", ".join(seat.name for seat in self.seats)
        raise Rejected("testnet.unknown-hospital", f"There is no hospital {name!r} in {self.folder}: it has {names}.")


def new_plan(folder: Path, hospitals: int, base_port: int = BASE_PORT) -> Plan:
    """Return the plan of a new network; `base_port` 0 lets us choose free ports.

    Raises Rejected: testnet.hospitals, testnet.port-taken.
    """
    if not HOSPITALS_MIN <= hospitals <= HOSPITALS_MAX:
        raise Rejected("testnet.hospitals", f"A test network has {HOSPITALS_MIN} to {HOSPITALS_MAX} hospitals, not {hospitals}.")
    if base_port == 0:
        base_port = _free_base(hospitals)
    highest = 65_535 - PEER_PORT_OFFSET - hospitals
    if not 1 <= base_port <= highest:
        raise Rejected("testnet.port-taken", f"The base port must be from 1 to {highest}, or 0 to choose free ones.")
    seats = _seats(folder, string.ascii_lowercase[:hospitals], base_port)
    check_ports(seats)
    return Plan(folder, f"testnet-{secrets.token_hex(4)}", seats)


def write_network(plan: Plan, parameters: Parameters | None = None) -> Genesis:
    """Make all keys and files of the network; testnet.json comes last, so that a folder with it is whole.

    When it cannot be finished, or is interrupted, what was made is removed: it would stand in the way of the next try.
    Raises Rejected: testnet.folder-in-use, home.*, keyfile.*.
    """
    existed = plan.folder.exists()
    if existed and (not plan.folder.is_dir() or any(plan.folder.iterdir())):
        raise Rejected("testnet.folder-in-use", f"{plan.folder} is not empty and holds no test network: choose another folder.")
    try:
        return _write(plan, parameters)
    except BaseException:
        for entry in plan.folder.iterdir() if plan.folder.is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not existed and plan.folder.is_dir():
            plan.folder.rmdir()
        raise


def _write(plan: Plan, parameters: Parameters | None) -> Genesis:
    homes.make_folder(NodeHome(plan.folder))
    homes.make_folder(NodeHome(plan.folder / "officers"))
    passphrase = secrets.token_urlsafe(24)
    homes.write_file(plan.passphrase_file, passphrase.encode() + b"\n", mode=0o600)
    now = datetime.now(UTC)
    with ThreadPoolExecutor(4) as threads:  # scrypt and the disk leave the interpreter lock
        work: list[Future[Any]] = []
        rows = [_make_seat(plan, seat, passphrase, now, threads, work) for seat in plan.seats]
        genesis = Genesis(
            chain_id=plan.chain_id,
            time_ms=int(now.timestamp() * 1_000),
            parameters=parameters or Parameters(),
            hospitals=tuple(sorted(rows, key=lambda row: row.consensus_key)),
        )
        work += [threads.submit(homes.found_store, seat.home, genesis) for seat in plan.seats]
        for task in work:
            task.result()
    homes.write_file(plan.genesis_file, genesis.to_json().encode())
    homes.write_file(plan.folder / FILE_NAME, _to_json(plan).encode())
    return genesis


def load_plan(folder: Path) -> Plan:
    """Read testnet.json. Raises Rejected testnet.missing, Malformed."""
    file = folder / FILE_NAME
    try:
        text = file.read_text(encoding="utf-8")[:FILE_BYTES_MAX]
    except (OSError, UnicodeDecodeError):
        raise Rejected("testnet.missing", f"There is no test network in {folder}: start one with `medchain testnet up`.") from None
    try:
        document = json.loads(text)
        _refuse_unknown(file, [(document, _DOCUMENT_NAMES), *[(row, _SEAT_NAMES) for row in document["hospitals"]]])
        seats = tuple(_read_seat(folder, row) for row in document["hospitals"])
        return Plan(folder, str(document["chain_id"]), seats)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Malformed(f"{file} is damaged: remove the folder and start a new test network") from None


def write_settings(seat: Seat, settings: Mapping[tuple[str, str], str | int]) -> None:
    """Give a hospital's node settings of its own, by (section, key), beside the two addresses of its seat; they hold from its next start.

    Raises Rejected: config.*, home.unusable.
    """
    homes.save_config(seat.home, {**settings, **_settings(seat)})


def check_ports(seats: Sequence[Seat]) -> None:
    """Raise Rejected testnet.port-taken when another program listens at a port of these seats."""
    for seat in seats:
        for port in (seat.rpc_port, seat.peer_port):
            if not _is_free(port):
                raise Rejected("testnet.port-taken", f"Port {port} is taken: choose others with --base-port (0 = any free).")


def _refuse_unknown(file: Path, objects: Sequence[tuple[dict[str, Any], tuple[str, ...]]]) -> None:
    """Raise Malformed for a name that nobody would read: a setting that is silently ignored looks as if it worked."""
    for found, known in objects:
        for name in found:
            if name not in known:
                raise Malformed(f"{file} sets {str(name)[:40]!r}, which does not exist: remove or correct it")


def _read_seat(folder: Path, row: Any) -> Seat:
    """Return a seat of testnet.json. Raises ValueError and its like for anything that is none."""
    name, ports = row["name"], (row["rpc_port"], row["peer_port"])
    if name not in string.ascii_lowercase or len(name) != 1 or not all(type(port) is int and 0 < port < 65_536 for port in ports):
        raise ValueError("no seat")
    return Seat(name, NodeHome(folder / name), *ports)


def _make_seat(plan: Plan, seat: Seat, passphrase: str, now: datetime, threads: ThreadPoolExecutor, work: list[Future[Any]]) -> Hospital:
    """Make a hospital's folder and keys, leaving the slow writing to `threads`; return its row of the genesis document."""
    homes.make_folder(seat.home)
    keys, officer = homes.make_identities(), Identity.generate("officer")
    tls = homes.make_tls(f"hospital {seat.name}", [HOST, "localhost"], passphrase, now)
    work.append(threads.submit(homes.save_keys, seat.home, keys, tls, passphrase))
    work.append(threads.submit(save_identity, plan.officer_key_file(seat.name), officer, passphrase))
    homes.save_config(seat.home, _settings(seat))
    return _row(seat, keys, officer, tls[1])


def _row(seat: Seat, keys: Keys, officer: Identity, certificate: bytes) -> Hospital:
    return Hospital(
        name=seat.name,
        role=VALIDATOR,
        consensus_key=keys.consensus.signing.public,
        officer_key=officer.signing.public,
        organisation_key=keys.organisation.signing.public,
        opening_suite=keys.organisation.opening.suite,
        opening_key=keys.organisation.opening.public,
        certificate=certificate,
        endpoints=(f"{HOST}:{seat.peer_port}",),
    )


def _settings(seat: Seat) -> Mapping[tuple[str, str], str | int]:
    return {("rpc", "listen"): f"{HOST}:{seat.rpc_port}", ("peers", "listen"): f"{HOST}:{seat.peer_port}"}


def _seats(folder: Path, names: Sequence[str], base_port: int) -> tuple[Seat, ...]:
    return tuple(
        Seat(name, NodeHome(folder / name), base_port + index, base_port + PEER_PORT_OFFSET + index) for index, name in enumerate(names)
    )


def _free_base(hospitals: int) -> int:
    """Return a base at which all ports are free now; several networks may look at the same time, so they begin at different places."""
    bases = list(_CHOSEN_PORTS)
    random.SystemRandom().shuffle(bases)
    for base in bases:
        ports = [base + offset + index for offset in (0, PEER_PORT_OFFSET) for index in range(hospitals)]
        if all(_is_free(port) for port in ports):
            return base
    raise Rejected("testnet.port-taken", "There is no free range of ports: stop other test networks, or give --base-port.")


def _is_free(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports of a network just stopped linger in TIME_WAIT
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _to_json(plan: Plan) -> str:
    rows = [{"name": seat.name, "rpc_port": seat.rpc_port, "peer_port": seat.peer_port} for seat in plan.seats]
    return json.dumps({"medchain_testnet": 1, "chain_id": plan.chain_id, "hospitals": rows}, indent=1) + "\n"
