"""A stage for transcripts: real replicas under short names, messages that wait until told, and every output in readable words.

scenarios/README.md tells a newcomer the commands. What agreement must never do is checked here on every turn, whatever a transcript says:
so rewriting one cannot bless a fork, a second promise, a word before it is durable, or evidence against an honest validator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from medchain.chain.block import Proposal
from medchain.chain.parameters import Parameters
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import (
    Broadcast,
    BuildProposal,
    CheckProposal,
    Decided,
    EvidenceFound,
    FetchBlock,
    HandOver,
    HardState,
    HeightStarted,
    Input,
    Output,
    OwnPreparedProof,
    OwnViewChange,
    OwnVote,
    Persist,
    PinnedProposal,
    ProposalChecked,
    SawUnknownOwnVote,
    Ticked,
    VotingAllowed,
)
from medchain.consensus.messages import PrePrepare
from medchain.consensus.replica import Replica
from medchain.consensus.rotation import primary
from tests.consensus.conftest import GENESIS_DIGEST, GENESIS_TIME_MS, KEYS, NETWORK, as_event, validators_of

Message = PrePrepare | Vote | ViewChange
KINDS = {"prepare": PREPARE, "commit": COMMIT}
WORDS = {kind: word for word, kind in KINDS.items()}


class Misuse(Exception):
    """A transcript says what this stage does not understand, or makes an honest validator say what it never signed."""


@dataclass
class Player:
    """One validator: its replica, what its disk keeps, its clock."""

    name: str
    index: int
    replica: Replica
    disk: list[HardState] = field(default_factory=list)
    backup: list[HardState] = field(default_factory=list)
    decided: list[bytes] = field(default_factory=list)
    """Digests of the heights that were left behind with `next`."""
    monotonic_ms: int = 0
    wall_offset_ms: int = 0
    is_up: bool = True
    is_slow: bool = False
    dies: str | None = None
    """Where the next turn that writes ends: before-writing or before-sending."""

    @property
    def wall_ms(self) -> int:
        return GENESIS_TIME_MS + 1_000 + self.monotonic_ms + self.wall_offset_ms


class Stage:
    """The players, the messages in flight and the names of blocks."""

    def __init__(self) -> None:
        self.players: dict[str, Player] = {}
        self.liars: tuple[str, ...] = ()
        self.blocks: dict[str, Proposal] = {}
        self.invalid: list[str] = []
        self.flight: list[tuple[str, str, Message]] = []
        self.cuts: list[tuple[str, str]] = []
        self.signed: dict[tuple[str, int, int, int, bytes], Vote] = {}
        self.changes: dict[tuple[str, int, int], ViewChange] = {}
        self.promised: dict[tuple[object, ...], object] = {}
        self.said: dict[tuple[str, int, str], None] = {}
        self.final: dict[int, bytes] = {}
        self.lines: list[str] = []
        """What the command under way made happen."""
        self.summary: dict[str, list[str]] | None = None
        """While `settle` runs: what each player did, instead of lines."""

    def start(self, n: int, liars: tuple[str, ...], turns: str | None) -> None:
        """Boot `n` validators called a, b, c... in the order of their keys; those named in `turns` lead, without it all."""
        self.validators = validators_of(n)
        names = "abcdefghijklm"[:n]
        self.rotation = tuple(KEYS[names.index(name)].public for name in (turns or names))
        self.liars = liars
        self.players = {name: Player(name, index, Replica(NETWORK, KEYS[index])) for index, name in enumerate(names)}
        for player in self.players.values():
            if player.name not in liars:
                self.boot(player)

    # ---- what a turn does -------------------------------------------------------------------------------------------------------

    def feed(self, player: Player, event: Input, heading: str, *, is_always_told: bool = True) -> None:
        """Hand one event to a replica that is up, obey its outputs and tell both."""
        if not player.is_up or player.name in self.liars:
            return
        view, height = player.replica.view, player.replica.height
        outputs = player.replica.handle(event)
        is_moved = player.replica.height == height and player.replica.view != view
        if outputs or is_moved or is_always_told:
            self.tell(heading)
        if player.dies == "before-writing" and any(isinstance(output, Persist) for output in outputs):
            self.note(player, "crash before anything is written")
            return self.kill(player)
        if is_moved:
            self.note(player, f"enter v{player.replica.view}, led by {self.leader(player.replica.height, player.replica.view)}")
        if player.dies == "before-sending" and any(isinstance(output, Persist) for output in outputs):
            for output in outputs:
                if isinstance(output, Persist):
                    self.obey(player, output)
            self.note(player, "crash before anything is sent")
            return self.kill(player)
        answers = [answer for output in outputs if (answer := self.obey(player, output)) is not None]
        for name in answers:
            self.check(player, name)

    def kill(self, player: Player) -> None:
        player.is_up, player.dies = False, None

    def obey(self, player: Player, output: Output) -> str | None:
        """Do what the replica says, in its order, and put it in words; return the block its executor now answers for."""
        match output:
            case Persist(record):
                self.promise(player, record)
                player.disk.append(record)
                self.note(player, f"persist {self.record(record)}", is_summary=False)
            case Broadcast(message):
                self.send(player, message)
            case BuildProposal(_, view, is_urgent):
                self.note(player, f"build a block for v{view}{' at once' if is_urgent else ''}")
            case CheckProposal(proposal):
                name = self.name(proposal.header.digest())
                self.note(player, f"check {name}", is_summary=False)
                return None if player.is_slow else name
            case FetchBlock(_, digest):
                self.note(player, f"fetch {self.name(digest)}")
            case HandOver():
                self.note(player, f"hand transactions over to {self.leader(player.replica.height, player.replica.view)}")
            case Decided(certificate):
                first = self.final.setdefault(certificate.height, certificate.digest)
                assert first == certificate.digest, "two blocks of one height are final"
                by = " ".join(self.voters(certificate.commits))
                self.note(player, f"decide {self.name(certificate.digest)} in v{certificate.view} by {by}")
            case EvidenceFound(offender, kind, one, two):
                liar = self.player_of(offender)
                assert liar in self.liars, f"{liar} is honest and is convicted of {kind}"
                self.note(player, f"evidence against {liar}, {kind}: {self.words(one)}, then {self.words(two)}")
            case SawUnknownOwnVote(statement):
                self.note(player, f"alarm, an own vote that was never sent: {self.words(statement)}")
        return None

    def check(self, player: Player, name: str) -> None:
        """The executor answers."""
        is_valid = name not in self.invalid
        self.feed(player, ProposalChecked(self.digest(name), is_valid), f"{player.name}: {name} is {'' if is_valid else 'in'}valid")

    def promise(self, player: Player, record: HardState) -> None:
        """Hold what is written against everything this validator ever wrote."""
        match record:
            case OwnVote(vote):
                place: tuple[object, ...] = (player.name, vote.kind, vote.height, vote.view)
                assert self.promised.setdefault(place, vote.digest) == vote.digest, f"{player.name} promises twice"
                left = max((view for name, height, view in self.changes if (name, height) == (player.name, vote.height)), default=0)
                assert vote.view >= left, f"{player.name} votes in a view it left"
                self.signed[player.name, vote.kind, vote.height, vote.view, vote.digest] = vote
            case OwnViewChange(change):
                place = (player.name, "view-change", change.height, change.view)
                assert self.promised.setdefault(place, change) == change, f"{player.name} changes its view change"
                self.changes[player.name, change.height, change.view] = change

    def send(self, player: Player, message: Message) -> None:
        """Put a message in flight to all others; it must be durable."""
        part = message.prepare if isinstance(message, PrePrepare) else message
        durable: HardState = OwnVote(part) if isinstance(part, Vote) else OwnViewChange(part)
        assert durable in player.disk, f"{player.name} says what is not durable"
        place = (player.name, message.height, self.words(message))
        is_again = place in self.said
        self.said[place] = None
        self.note(player, f"{'resend' if is_again else 'send'} {self.words(message)}", is_summary=not is_again)
        for receiver in self.players:
            row = (player.name, receiver, message)
            if receiver != player.name and not self.is_cut(player.name, receiver) and row not in self.flight:
                self.flight.append(row)

    def deliver(self, sender: str, receiver: str, message: Message) -> None:
        self.feed(self.players[receiver], as_event(message), f"{receiver} <- {sender}: {self.words(message)}")

    # ---- telling ----------------------------------------------------------------------------------------------------------------

    def tell(self, heading: str) -> None:
        if self.summary is None:
            self.lines.append(heading)

    def note(self, player: Player, text: str, *, is_summary: bool = True) -> None:
        """One thing a player did: indented under what caused it, or gathered for `settle`."""
        if self.summary is None:
            self.lines.append(f"  {text}")
        elif is_summary:
            self.summary.setdefault(player.name, []).append(text)

    def name(self, digest: bytes) -> str:
        return next((name for name, block in self.blocks.items() if block.header.digest() == digest), digest.hex()[:8])

    def digest(self, name: str) -> bytes:
        return self.block(name).header.digest()

    def block(self, name: str) -> Proposal:
        if name not in self.blocks:
            raise Misuse(f"no block is called {name}")
        return self.blocks[name]

    def player_of(self, key: bytes) -> str:
        return next(player.name for player in self.players.values() if KEYS[player.index].public == key)

    def voters(self, rows: tuple[tuple[int, bytes], ...]) -> list[str]:
        names = list(self.players)
        return [names[index] for index, _ in rows]

    def words(self, message: Message) -> str:
        """A message as it stands in a transcript."""
        if isinstance(message, Vote):
            return f"{WORDS[message.kind]} v{message.view} {self.name(message.digest)}"
        if isinstance(message, ViewChange):
            if message.prepared_view is None:
                return f"view-change v{message.view} shows nothing"
            proof = "" if message.proof is None else " proven by " + " ".join(self.voters(message.proof.prepares))
            return f"view-change v{message.view} shows v{message.prepared_view} {self.name(message.digest or b'')}{proof}"
        with_whom = " with " + " ".join(self.player_of(change.signer) for change in message.view_changes) if message.view_changes else ""
        return f"pre-prepare v{message.view} {self.name(message.digest)}{with_whom}"

    def record(self, record: HardState) -> str:
        match record:
            case OwnVote(vote):
                return self.words(vote)
            case OwnViewChange(change):
                return self.words(change)
            case PinnedProposal(proposal, view):
                return f"block {self.name(proposal.header.digest())} for v{view}"
            case OwnPreparedProof(proof):
                return f"proof v{proof.view} {self.name(proof.digest)} by {' '.join(self.voters(proof.prepares))}"

    # ---- the world --------------------------------------------------------------------------------------------------------------

    def leader(self, height: int, view: int) -> str:
        return self.player_of(primary(self.rotation, height, view))

    def parent(self, height: int) -> tuple[bytes, int]:
        """Digest and time of the block below a height."""
        if height == 1:
            return GENESIS_DIGEST, GENESIS_TIME_MS
        if height - 1 not in self.final:
            raise Misuse(f"height {height - 1} is not decided")
        header = self.blocks[self.name(self.final[height - 1])].header
        return header.digest(), header.time_ms

    def start_height(self, player: Player, height: int) -> HeightStarted:
        digest, time_ms = self.parent(height)
        records = tuple(record for record in player.disk if height_of(record) == height)
        return HeightStarted(height, self.validators, self.rotation, Parameters(), time_ms, digest, records)

    def boot(self, player: Player, *, is_voting: bool = True) -> None:
        """Start a process with what its disk holds."""
        player.replica, player.is_up = Replica(NETWORK, KEYS[player.index]), True
        player.replica.handle(Ticked(player.monotonic_ms, player.wall_ms))
        player.replica.handle(VotingAllowed(is_voting))
        height = len(player.decided) + 1
        self.feed(player, self.start_height(player, height), f"{player.name}: start height {height}", is_always_told=False)

    def is_cut(self, sender: str, receiver: str) -> bool:
        return any(one in ("*", sender) and other in ("*", receiver) for one, other in self.cuts)

    def named(self, words: str) -> list[Player]:
        """`a`, `a,c`, `*` or `all`."""
        if words in ("*", "all"):
            return list(self.players.values())
        unknown = [name for name in words.split(",") if name not in self.players]
        if unknown:
            raise Misuse(f"no validator is called {unknown[0]}")
        return [self.players[name] for name in words.split(",")]

    def links(self, words: str) -> list[tuple[str, str]]:
        """`a->b`, `a,b->*`, `all`."""
        sender, _, receiver = ("*->*" if words == "all" else words).partition("->")
        if not receiver:
            raise Misuse(f"a link reads a->b, not {words}")
        ends = [(one.name, other.name) for one in self.named(sender) for other in self.named(receiver)]
        return [(one, other) for one, other in ends if one != other]

    def matching(self, words: list[str]) -> list[tuple[str, str, Message]]:
        """Messages in flight on a link that begin with these words: `b->* prepare v0`; no words = all."""
        links, rest = self.links(words[0] if words else "all"), words[1:]
        return [row for row in self.flight if (row[0], row[1]) in links and self.words(row[2]).split()[: len(rest)] == rest]

    # ---- statements made by hand ------------------------------------------------------------------------------------------------

    def vote(self, name: str, kind: int, height: int, view: int, digest: bytes) -> Vote:
        """A vote that an honest validator signed, or that a liar signs now."""
        place = (name, kind, height, view, digest)
        if place not in self.signed:
            if name not in self.liars:
                raise Misuse(f"{name} is honest and never signed {WORDS[kind]} v{view} {self.name(digest)}")
            self.signed[place] = Vote.sign(NETWORK, KEYS[self.players[name].index], kind, height, view, digest)
        return self.signed[place]

    def signatures(self, names: list[str], kind: int, height: int, view: int, digest: bytes) -> tuple[tuple[int, bytes], ...]:
        rows = [(self.players[name].index, self.vote(name, kind, height, view, digest).signature) for name in names]
        if len(rows) != self.validators.quorum:
            raise Misuse(f"{self.validators.quorum} validators are a quorum, not {len(rows)}")
        return tuple(sorted(rows))

    def statement(self, speaker: str, words: list[str], options: dict[str, str]) -> Message:
        """Read `prepare v0 B1`, `view-change v2 shows v0 B1 proven by a b d`, `pre-prepare v1 B1 with a b d`."""
        kind, view, rest = words[0], view_of(words[1]), words[2:]
        height = int(options.get("height", "1"))
        if kind in KINDS:
            return self.vote(speaker, KINDS[kind], height, view, self.digest(rest[0]))
        if kind == "view-change":
            return self.view_change(speaker, height, view, rest)
        if kind != "pre-prepare":
            raise Misuse(f"nobody can say {kind}")
        block = self.block(rest[0])
        prepare = self.vote(speaker, PREPARE, height, view, block.header.digest())
        return PrePrepare(block, prepare, self.justification(height, view, rest[2:]))

    def view_change(self, speaker: str, height: int, view: int, rest: list[str]) -> ViewChange:
        proof = None
        if rest[1] != "nothing":
            prepared, digest = view_of(rest[1]), self.digest(rest[2])
            is_proven = rest[3:5] == ["proven", "by"]
            rows = self.signatures(rest[5:], PREPARE, height, prepared, digest) if is_proven else ()
            proof = PreparedProof(height, prepared, digest, rows)
        change = ViewChange.sign(NETWORK, KEYS[self.players[speaker].index], height, view, proof)
        if proof is not None and not proof.prepares:
            change = change.without_proof()
        self.changes[speaker, height, view] = change
        return change

    def justification(self, height: int, view: int, names: list[str]) -> tuple[ViewChange, ...]:
        """The view changes of these validators for exactly this view; only the first with the highest prepared view keeps its proof."""
        missing = [name for name in names if (name, height, view) not in self.changes]
        if missing:
            raise Misuse(f"{missing[0]} never signed a view change to v{view}")
        changes = [self.changes[name, height, view] for name in sorted(names)]
        provers = [change for change in changes if change.proof is not None]
        highest = max(provers, key=lambda change: change.prepared_view or 0, default=None)
        return tuple(change if change is highest else change.without_proof() for change in changes)


# ---- words ------------------------------------------------------------------------------------------------------------------------


def view_of(word: str) -> int:
    if not re.fullmatch(r"v[0-9]+", word):
        raise Misuse(f"a view reads v0, not {word}")
    return int(word[1:])


def duration_of(word: str) -> int:
    found = re.fullmatch(r"([+-]?[0-9]+)(ms|s|min)", word)
    if found is None:
        raise Misuse(f"a time reads 1000ms, 2s or 10min, not {word}")
    return int(found[1]) * {"ms": 1, "s": 1_000, "min": 60_000}[found[2]]


def split_options(words: list[str], allowed: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Plain words, and those that read key=value."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise Misuse(f"no such option: {unknown[0]}")
    return [word for word in words if "=" not in word], options


def height_of(record: HardState) -> int:
    match record:
        case OwnVote(vote):
            return vote.height
        case OwnViewChange(change):
            return change.height
        case PinnedProposal(proposal, _):
            return proposal.header.height
        case OwnPreparedProof(proof):
            return proof.height
