"""Transcripts of whole engines: what one would see on the wires of a small network, node by node, without a single millisecond.

The form of the files is that of tests/consensus/transcript.py; the nodes are those of conftest.py, so every message crosses its encoding.
Said again is told once; that nodes say every second where they stand is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from medchain.chain.transaction import Transaction
from medchain.chain.vote import PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.crypto.hashing import tagged_digest
from medchain.engine.ready import Accepted, Alarm, BlockDecided, PeerAccused, Ready, Received, Submitted
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import (
    BlockSent,
    BlockWanted,
    EvidenceSent,
    PastVotesSent,
    PastVotesWanted,
    PoolListed,
    ProposalWanted,
    RangeSent,
    RangeWanted,
    TransactionsOffered,
    TransactionsWanted,
)
from tests.consensus.stage import Misuse, duration_of, split_options
from tests.engine.conftest import Cluster, Node


class Scene:
    """A cluster under short names, and what its nodes did while the last command ran."""

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.transactions: dict[str, Transaction] = {}
        self.lost: list[tuple[list[str], list[str], list[str]]] = []
        self.backups: dict[str, MemoryKeyValue] = {}
        self.told: dict[str, dict[str, list[str]]] = {}
        self.extra: list[str] = []

    def obey(self, command: str) -> list[str]:
        """Run one command; return what happened, a line for each node that did anything."""
        verb, *words = command.split()
        if verb not in COMMANDS:
            raise Misuse(f"no such command: {verb}; there are {', '.join(sorted(COMMANDS))}")
        if not self.names and verb != "start":
            raise Misuse("the first command is start")
        self.told, self.extra = {name: {} for name in self.names}, []
        COMMANDS[verb](self, words)
        lines = [f"{name}: {'; '.join(with_targets(*row) for row in did.items())}" for name, did in self.told.items() if did]
        return [*lines, *self.extra]

    def begin(self, count: int) -> None:
        """Nodes are named in the order of their keys, so that b leads height 1, c height 2."""
        self.cluster = Cluster(count)
        nodes = sorted(self.cluster.nodes, key=lambda node: node.key.public)
        self.names = dict(zip("abcdefghij"[:count], nodes, strict=False))
        for name, node in self.names.items():
            node.handle = self.watched(name, node.handle)
        self.cluster.drop = self.is_lost
        self.cluster.warm()

    def watched(self, name: str, handle: Callable[..., Ready]) -> Callable[..., Ready]:
        def watched(*events: Any) -> Ready:
            ready = handle(*events)
            for envelope in ready.send:
                self.tell(name, self.words(envelope.message), None if envelope.to is None else self.name(envelope.to))
            for reply in ready.replies:
                self.tell(name, self.reply(reply), None)
            return ready

        return watched

    def tell(self, name: str, text: str | None, target: str | None) -> None:
        if text is not None and name in self.told:
            targets = self.told[name].setdefault(text, [])
            if target is not None and target not in targets:
                targets.append(target)

    def name(self, key: bytes) -> str:
        return next(name for name, node in self.names.items() if node.key.public == key)

    def titles(self, ids: list[bytes]) -> str:
        known = {transaction.id: title for title, transaction in self.transactions.items()}
        return " ".join(known[identity] for identity in ids)

    def words(self, message: Any) -> str | None:
        """A message in words; None for what is said all the time."""
        match message:
            case PrePrepare():
                return f"propose {message.height} v{message.view}"
            case Vote():
                return f"{'prepare' if message.kind == PREPARE else 'commit'} {message.height} v{message.view}"
            case ViewChange():
                return f"view-change {message.height} v{message.view}"
            case TransactionsOffered():
                return f"offer {self.titles([transaction.id for transaction in message.transactions])}"
            case PoolListed() | TransactionsWanted():
                verb = "list" if isinstance(message, PoolListed) else "want"
                return f"{verb} {self.titles([identity for identity, _ in message.entries])}"
            case BlockWanted():
                return f"want the proposed block of {message.height}"
            case ProposalWanted():
                return f"want the proposal of {message.height} v{message.view}"
            case BlockSent():
                return f"give the proposed block of {message.block.header.height}"
            case RangeWanted():
                return f"want blocks from {message.first} on"
            case RangeSent():
                heights = [block.header.height for block, _ in message.blocks]
                return f"give blocks {heights[0]} to {heights[-1]}" if heights else None
            case PastVotesWanted():
                return "ask what is held of me"
            case PastVotesSent():
                return f"answer: decided {message.height}, {len(message.votes) + len(message.view_changes)} votes held"
            case EvidenceSent():
                return "pass on evidence"
        return None

    def reply(self, reply: Any) -> str | None:
        match reply:
            case Accepted():
                return f"accept {self.titles([reply.transaction_id])}"
            case BlockDecided(height):
                block = self.titles([receipt.transaction_id for receipt in reply.receipts if receipt.transaction_id in self.ids()])
                return f"decide {height}{': ' + block if block else ''}"
            case PeerAccused(peer, reason):
                return f"accuse {self.name(peer)}: {reason}"
            case Alarm(code):
                return f"alarm {code}"
        return None

    def ids(self) -> list[bytes]:
        return [transaction.id for transaction in self.transactions.values()]

    def node(self, name: str) -> Node:
        if name not in self.names:
            raise Misuse(f"no node is called {name}")
        return self.names[name]

    def is_lost(self, source: Node, target: Node, message: Any) -> bool:
        text = (self.words(message) or "").split()
        ends = self.name(source.key.public), self.name(target.key.public)
        return any(ends[0] in one and ends[1] in other and text[: len(words)] == words for one, other, words in self.lost)

    def some(self, words: str) -> list[str]:
        names = list(self.names) if words in ("*", "all") else words.split(",")
        return [name for name in names if self.node(name)]


def with_targets(text: str, targets: list[str]) -> str:
    return f"{text} -> {','.join(sorted(targets))}" if targets else text


# ---- commands ---------------------------------------------------------------------------------------------------------------------


def start(scene: Scene, words: list[str]) -> None:
    """Boot a network and let everybody pass its amnesia check."""
    _, options = split_options(words, ("n",))
    scene.begin(int(options["n"]))


def submit(scene: Scene, words: list[str]) -> None:
    """A client hands a transaction to a node: the registration of a patient of that name."""
    name, title = words
    scene.transactions[title] = scene.cluster.patient(0, title)
    scene.node(name).handle(Submitted(7, scene.transactions[title]))


def run(scene: Scene, words: list[str]) -> None:
    (duration,) = words
    scene.cluster.run(duration_of(duration))


def lose(scene: Scene, words: list[str]) -> None:
    """From now on messages on these links that begin with these words are lost: `lose *->d offer`."""
    sender, _, receiver = words[0].partition("->")
    scene.lost.append((scene.some(sender), scene.some(receiver), words[1:]))


def heal(scene: Scene, words: list[str]) -> None:
    if words:
        raise Misuse("heal takes no words")
    scene.lost = []


def kill(scene: Scene, words: list[str]) -> None:
    for name in scene.some(words[0]):
        scene.cluster.kill(scene.node(name))


def restart(scene: Scene, words: list[str]) -> None:
    for name in scene.some(words[0]):
        scene.cluster.restart(scene.node(name))


def wipe(scene: Scene, words: list[str]) -> None:
    """The disk of a node that is down is empty."""
    down(scene, words[0]).store = MemoryKeyValue()


def backup(scene: Scene, words: list[str]) -> None:
    scene.backups[words[0]] = scene.node(words[0]).store.copy()


def restore(scene: Scene, words: list[str]) -> None:
    """The disk of a node that is down holds again what it held at its backup."""
    down(scene, words[0]).store = scene.backups[words[0]].copy()


def down(scene: Scene, name: str) -> Node:
    node = scene.node(name)
    if node.is_alive:
        raise Misuse(f"{name} must be down while its disk changes")
    return node


def contradict(scene: Scene, words: list[str]) -> None:
    """Somebody with the key of one node sends another two prepares for two blocks of the height under way: `contradict d->a`."""
    sender, _, receiver = words[0].partition("->")
    liar, target = scene.node(sender), scene.node(receiver)
    height = target.height + 1
    for text in (b"one", b"two"):
        vote = Vote.sign(scene.cluster.network, liar.key, PREPARE, height, 0, tagged_digest("medchain/block", text))
        target.handle(Received(liar.key.public, vote))


def status(scene: Scene, words: list[str]) -> None:
    """Height, who leads the next one, and whether each may vote."""
    for name in scene.some(words[0]) if words else scene.names:
        node = scene.node(name)
        if not node.is_alive:
            scene.extra.append(f"{name}  down")
            continue
        told = node.engine.status()
        leader = scene.name(primary(node.engine.chain.rotation, node.height + 1, told["view"]))
        votes = "votes" if told["may_vote"] else "does not vote"
        waits = f"; waits for {told['waits_for']}" if told["waits_for"] else ""
        scene.extra.append(f"{name}  decided {told['height']}, next led by {leader}; {votes}{waits}")


COMMANDS: Final[dict[str, Callable[[Scene, list[str]], None]]] = {
    "start": start,
    "submit": submit,
    "run": run,
    "lose": lose,
    "heal": heal,
    "kill": kill,
    "restart": restart,
    "wipe": wipe,
    "backup": backup,
    "restore": restore,
    "contradict": contradict,
    "status": status,
}
