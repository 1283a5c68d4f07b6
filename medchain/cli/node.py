"""`medchain node`: make a hospital's node, run it, ask how it is."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from medchain.chain.limits import NAME_BYTES_MAX, PROTOCOL_VERSION
from medchain.cli import address, output, passphrase
from medchain.errors import Malformed, Rejected

DEFAULT_HOME: Final = "."
DESCRIPTION_BYTES_MAX: Final = 64 * 1024

REFUSALS: Final[dict[str, str]] = {
    "cli.options": "Options were combined that do not belong together, or one is missing.",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser(
        "init",
        help="make a node's folder: keys first, then, with the genesis document, its store",
        description="Without --genesis: makes keys, certificate, settings and hospital.json, which says what the genesis document must "
        "hold of this hospital. With --genesis: checks that it does, and founds the store.",
    )
    _add_home(init)
    init.add_argument("--genesis", metavar="FILE", help="the genesis document that all hospitals agreed on")
    init.add_argument("--name", metavar="NAME", help="the hospital's name in the network (with new keys)")
    init.add_argument("--officer", metavar="FILE", help="key file of the hospital's officer, kept offline; only its public part is read")
    init.add_argument("--observer", action="store_true", help="follow the chain without voting")
    init.add_argument("--host", action="append", metavar="HOST", help="host name or address at which the others reach this node")
    init.add_argument("--peer-port", type=int, default=7200, metavar="PORT", help="port of the peer listener (default 7200)")
    init.add_argument("--rpc-port", type=int, default=7100, metavar="PORT", help="port for clients, on loopback (default 7100)")
    passphrase.add_new_key_options(init)
    genesis = verbs.add_parser(
        "genesis",
        help="write a genesis document from the hospital.json of every founding member",
        description="Writes the founding document of a new network. Every member compares its digest before `node init --genesis`.",
    )
    genesis.add_argument("--hospital", action="append", required=True, metavar="FILE", help="hospital.json of a member; four or more")
    genesis.add_argument("--chain-id", required=True, metavar="NAME", help="the network's name")
    genesis.add_argument("--out", required=True, metavar="FILE", help="the genesis document; it must not exist yet")
    start = verbs.add_parser("start", help="run the node until SIGTERM or Ctrl-C")
    _add_home(start)
    start.add_argument("--empty-store", action="store_true", help="begin with an empty store, because the disk with the old one is lost")
    passphrase.add_option(start)
    status = verbs.add_parser("status", help="where a node stands")
    address.add_option(status)


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    match arguments.verb:
        case "init":
            return _init(arguments)
        case "genesis":
            return _genesis(arguments)
        case "start":
            return _start(arguments)
        case _:
            return _status(arguments)


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", default=DEFAULT_HOME, metavar="FOLDER", help="the node's folder (default: the present one)")


def _init(arguments: argparse.Namespace) -> int:
    from medchain.node.home import NodeHome

    home = NodeHome(Path(arguments.home))
    steps: list[str] = []
    facts: dict[str, Any] = {"home": str(home.path)}
    if not home.consensus_key_file.exists():
        facts |= _make_keys(arguments, home)
        steps.append(f"Keys made; give {home.path / 'hospital.json'} to whoever writes the genesis document.")
    if arguments.genesis:
        facts |= _found(home, Path(arguments.genesis))
        steps.append(f"The store is founded; run `medchain node start --home {home.path}`.")
    if not steps:
        raise Rejected("cli.options", f"{home.path} has its keys already: give the genesis document with --genesis.")
    output.answer(arguments, facts, steps)
    return output.DONE


def _make_keys(arguments: argparse.Namespace, home: Any) -> dict[str, Any]:
    """Make keys, certificate and settings, and describe the hospital in hospital.json."""
    from medchain import codec
    from medchain.chain.genesis import OBSERVER, VALIDATOR
    from medchain.crypto.keyfile import load_public
    from medchain.node import config
    from medchain.node import home as homes

    if not arguments.name or not arguments.officer or not arguments.host:
        raise Rejected(
            "cli.options", "New keys need --name, --officer and --host; `medchain keys new --role officer` makes an officer's key."
        )
    codec.as_text(arguments.name, "the hospital's name", NAME_BYTES_MAX)  # else only the genesis document would refuse it
    officer = load_public(arguments.officer)
    if officer.role != "officer":
        raise Malformed(f"{arguments.officer} is a key file for the role {officer.role}: make one with `medchain keys new --role officer`")
    settings = {("rpc", "listen"): f"127.0.0.1:{arguments.rpc_port}", ("peers", "listen"): f"0.0.0.0:{arguments.peer_port}"}
    config.render(settings)
    secret = passphrase.new_passphrase(arguments, (home.path,))
    tls = homes.make_tls(arguments.name, arguments.host, secret, datetime.now(UTC))
    endpoints = [f"[{host}]:{arguments.peer_port}" if ":" in host else f"{host}:{arguments.peer_port}" for host in arguments.host]
    homes.make_folder(home)
    try:
        homes.save_config(home, settings)
        homes.save_keys(home, homes.make_identities(), tls, secret)
        row = homes.own_row(home, arguments.name, OBSERVER if arguments.observer else VALIDATOR, officer.public, endpoints)
        described = homes.describe(row)
        homes.write_file(home.description_file, (output.as_json(described) + "\n").encode())
    except BaseException as error:  # keys that nobody was told of would stand in the way of the next try
        if getattr(error, "code", "") != "keyfile.exists":  # those are of another `node init` at the same moment
            for file in homes.made_files(home):
                file.unlink(missing_ok=True)
        raise
    return {"hospital": described}


def _found(home: Any, genesis_file: Path) -> dict[str, Any]:
    from medchain.node import home as homes

    genesis = homes.load_genesis(genesis_file)
    homes.check_membership(home, genesis)
    homes.found_store(home, genesis)
    return {"genesis": genesis.digest(), "chain_id": genesis.chain_id}


def _genesis(arguments: argparse.Namespace) -> int:
    from medchain.chain.genesis import Genesis
    from medchain.chain.parameters import Parameters
    from medchain.node.home import write_file

    out = Path(arguments.out)
    if out.exists():
        raise Rejected("cli.file", f"{out} exists already: choose another name.")
    rows = [_read_object(Path(file)) for file in arguments.hospital]
    document = {
        "medchain_genesis": PROTOCOL_VERSION,
        "chain_id": arguments.chain_id,
        "time_ms": int(datetime.now(UTC).timestamp() * 1_000),
        "parameters": Parameters().as_names(),
        "hospitals": sorted(rows, key=lambda row: str(row.get("consensus_key"))),
    }
    founded = Genesis.from_json(json.dumps(document))
    write_file(out, founded.to_json().encode())
    facts = {"file": str(out), "genesis": founded.digest(), "chain_id": founded.chain_id, "hospitals": len(founded.hospitals)}
    output.answer(arguments, facts, [f"{out} written", f"digest          {founded.digest().hex()}"])
    return output.DONE


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        value = json.loads(path.read_bytes()[:DESCRIPTION_BYTES_MAX])
    except OSError as error:
        raise Rejected("cli.file", f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Malformed(f"{path} is not the description that `medchain node init` writes")
    return value


def _start(arguments: argparse.Namespace) -> int:
    gc.disable()  # nothing is rubbish while modules load: a fifth of the start was the collector looking at classes
    from medchain.node.assemble import Node
    from medchain.node.home import NodeHome
    from medchain.node.privacy import keep_private

    gc.enable()
    keep_private()
    home = NodeHome(Path(arguments.home).resolve())
    node = Node(home, lambda: _node_passphrase(arguments, home.path), may_be_empty=arguments.empty_store)
    asyncio.run(node.run_until_stopped())
    output.answer(arguments, {"home": str(home.path), "height": node.height}, f"Stopped at height {node.height}.")
    return output.DONE


def _node_passphrase(arguments: argparse.Namespace, home: Path) -> str:
    return passphrase.passphrase_of(arguments, (home,), purpose=f"the node in {home}")


def rotation_lines(agreement: dict[str, Any]) -> list[str]:
    """Return who takes turns at proposing, from what a node says of agreement; nothing when it has not begun."""
    if "takes_turns" not in agreement:
        return []
    turns, left_out = agreement["takes_turns"], agreement["left_out"]
    lines = [f"take turns      {len(turns)} of {len(turns) + len(left_out)} hospitals at proposing"]
    if left_out:
        lines.append(f"left out        {', '.join(left_out)} (silent for long, or they let their turns pass)")
    return lines


def _status(arguments: argparse.Namespace) -> int:
    from medchain.cli.asking import ask_node

    status = ask_node(arguments, "node.status")
    lines = [
        f"height          {status['height']}",
        f"state root      {status['state_root']}",
        f"peers           {len(status['peers'])}",
        f"votes           {'yes' if status['may_vote'] else 'no'}",
        f"catching up     {'yes' if status['is_catching_up'] else 'no'}",
        f"in the pool     {status['pool_transactions']}",
    ]
    lines += rotation_lines(status["agreement"])
    if status.get("waits_for"):
        lines.append(f"waits for       {status['waits_for']}")
    output.answer(arguments, status, lines)
    return output.DONE
