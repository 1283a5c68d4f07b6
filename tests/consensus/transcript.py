"""Transcripts: files of commands and what they make happen, read by people and rewritten by `pytest --rewrite`.

After etcd-io/raft's testdata. A block is some command lines, a line `----`, and what happened; lines that begin with # are prose.
scenarios/README.md lists the commands; the table at the end of this module is what it is tested against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from medchain.chain.certificate import Certificate
from medchain.chain.vote import COMMIT
from medchain.consensus.events import BlockHeld, CertificateLearned, DecisionAdopted, ProposalBuilt, SituationChanged, Ticked, VotingAllowed
from tests.consensus.conftest import GENESIS_TIME_MS, KEYS, make_proposal
from tests.consensus.stage import Message, Misuse, Player, Stage, duration_of, split_options, view_of

RULE: Final = "----"
NOTHING: Final = "(nothing)"
ROUNDS_MAX: Final = 50
"""Rounds of deliveries within which a small network falls silent when no time passes."""


@dataclass(frozen=True)
class Block:
    """Commands and what they made happen; without commands, prose."""

    commands: tuple[str, ...]
    text: tuple[str, ...]


def parse(text: str) -> list[Block]:
    """Split a transcript into its blocks. Raises Misuse when one has commands without a rule."""
    blocks = []
    for paragraph in text.strip().split("\n\n"):
        lines = tuple(line.rstrip() for line in paragraph.strip("\n").splitlines())
        prose = tuple(line for line in lines if line.startswith("#"))
        if prose:
            blocks.append(Block((), prose))
        rest = tuple(line for line in lines if not line.startswith("#"))
        if not rest:
            continue
        if RULE not in rest:
            raise Misuse(f"a line of four dashes must follow the commands: {rest[0]}")
        place = rest.index(RULE)
        blocks.append(Block(rest[:place], rest[place + 1 :]))
    return blocks


def play(text: str, obey: Callable[[str], list[str]] | None = None) -> str:
    """Run a transcript from its beginning; return it with what really happened. `obey` runs one command on another stage than this."""
    stage, written = Stage(), []
    for block in parse(text):
        if not block.commands:
            written.append("\n".join(block.text))
            continue
        lines = [line for command in block.commands for line in (run(stage, command) if obey is None else obey(command))]
        written.append("\n".join([*block.commands, RULE, *(lines or [NOTHING])]))
    return "\n\n".join(written) + "\n"


def run(stage: Stage, command: str) -> list[str]:
    """Obey one command; return what happened. Raises Misuse for what no command is."""
    stage.lines = []
    verb, *words = command.split()
    if verb not in COMMANDS:
        raise Misuse(f"no such command: {verb}; there are {', '.join(sorted(COMMANDS))}")
    if not stage.players and verb != "start":
        raise Misuse("the first command is start")
    try:
        COMMANDS[verb](stage, words)
    except (IndexError, ValueError) as error:
        raise Misuse(f"cannot be read: {command} ({error})") from None
    return stage.lines


# ---- commands ---------------------------------------------------------------------------------------------------------------------


def start(stage: Stage, words: list[str]) -> None:
    _, options = split_options(words, ("n", "liars", "turns"))
    liars, turns = options.get("liars", ""), options.get("turns")
    stage.start(int(options["n"]), tuple(filter(None, liars.split(","))), None if turns is None else turns.replace(",", ""))


def block(stage: Stage, words: list[str]) -> None:
    """A block that nobody has proposed yet."""
    (name, view), options = split_options(words, ("height", "time"))
    make_block(stage, name, view_of(view), int(options.get("height", "1")), duration_of(options.get("time", "+0ms")))


def make_block(stage: Stage, name: str, view: int, height: int, offset_ms: int, wall_ms: int = GENESIS_TIME_MS + 1_000) -> None:
    if name in stage.blocks:
        raise Misuse(f"there is a block {name} already")
    parent, parent_time_ms = stage.parent(height)
    time_ms = max(wall_ms + offset_ms, parent_time_ms + 1)
    leader = stage.players[stage.leader(height, view)]
    stage.blocks[name] = make_proposal(
        stage.validators, height, view, parent=parent, time_ms=time_ms, salt=name.encode(), proposer=KEYS[leader.index].public
    )


def propose(stage: Stage, words: list[str]) -> None:
    """The engine of a primary answers that it built a block, dated by its own clock."""
    (who, name), _ = split_options(words, ())
    (player,) = stage.named(who)
    make_block(stage, name, player.replica.view, player.replica.height, 0, player.wall_ms)
    stage.feed(player, ProposalBuilt(player.replica.view, stage.block(name)), f"{who}: {name} is built")


def say(stage: Stage, words: list[str]) -> None:
    """A liar's statement reaches these receivers."""
    words, options = split_options(words, ("height",))
    links = stage.links(words[0])
    if any(sender not in stage.liars for sender, _ in links):
        raise Misuse("only liars say what they are told to")
    for sender, receiver in links:
        stage.deliver(sender, receiver, stage.statement(sender, words[1:], options))


def echo(stage: Stage, words: list[str]) -> None:
    """A statement that a validator once signed comes back to it: `echo c prepare v0 B1`."""
    words, options = split_options(words, ("height",))
    for player in stage.named(words[0]):
        height, view = int(options.get("height", "1")), view_of(words[2])
        change = stage.changes.get((player.name, height, view))
        message = change if words[1] == "view-change" else stage.statement(player.name, words[1:], options)
        if message is None:
            raise Misuse(f"{player.name} never signed a view change to v{view}")
        stage.deliver("somebody", player.name, message)


def deliver(stage: Stage, words: list[str]) -> None:
    """The matching messages that are in flight now arrive."""
    for row in take(stage, words):
        stage.deliver(*row)


def duplicate(stage: Stage, words: list[str]) -> None:
    """The matching messages arrive, and stay in flight to arrive again."""
    for row in stage.matching(words):
        stage.deliver(*row)


def drop(stage: Stage, words: list[str]) -> None:
    """The matching messages are lost."""
    stage.lines.append(f"lost: {len(take(stage, words))}")


def take(stage: Stage, words: list[str]) -> list[tuple[str, str, Message]]:
    rows = stage.matching(words)
    stage.flight = [row for row in stage.flight if row not in rows]
    return rows


def settle(stage: Stage, words: list[str]) -> None:
    """The matching messages arrive until none is in flight; told in one line for each validator, without what is written."""
    stage.summary = {}
    for _ in range(ROUNDS_MAX):
        for row in take(stage, words):
            stage.deliver(*row)
    if stage.matching(words):
        raise Misuse("the network does not fall silent")
    summary, stage.summary = stage.summary, None
    stage.lines += [f"{name}: {'; '.join(summary[name])}" for name in stage.players if name in summary]


def cut(stage: Stage, words: list[str]) -> None:
    """From now on these links lose everything, and what is in flight on them is lost."""
    (links,) = words
    stage.cuts += stage.links(links)
    stage.flight = [row for row in stage.flight if not stage.is_cut(row[0], row[1])]


def heal(stage: Stage, words: list[str]) -> None:
    if words:
        raise Misuse("heal takes no words")
    stage.cuts = []


def tick(stage: Stage, words: list[str]) -> None:
    """Time passes for these validators, in one step."""
    who, duration = words
    for player in stage.named(who):
        player.monotonic_ms += duration_of(duration)
        heading = f"{player.name}: {duration} later"
        stage.feed(player, Ticked(player.monotonic_ms, player.wall_ms), heading, is_always_told=False)


def clock(stage: Stage, words: list[str]) -> None:
    """The wall clock of a validator is set forward or back; timers do not notice."""
    who, offset = words
    for player in stage.named(who):
        player.wall_offset_ms += duration_of(offset)
        stage.feed(player, Ticked(player.monotonic_ms, player.wall_ms), f"{player.name}: clock {offset}", is_always_told=False)


SITUATIONS: Final = {"idle", "work-waiting", "work-known", "primary-gone", "heartbeat-due"}


def situation(stage: Stage, words: list[str]) -> None:
    """What the engine knows of its pool and peers."""
    who, *facts = words
    if not facts or set(facts) - SITUATIONS:
        raise Misuse(f"a situation is one or more of {', '.join(sorted(SITUATIONS))}")
    for player in stage.named(who):
        event = SituationChanged(
            is_work_known_to_primary="work-known" in facts,
            is_work_waiting="work-waiting" in facts or "work-known" in facts,
            is_primary_connected="primary-gone" not in facts,
            is_heartbeat_due="heartbeat-due" in facts,
        )
        stage.feed(player, event, f"{player.name}: {' '.join(facts)}", is_always_told=False)


def voting(stage: Stage, words: list[str]) -> None:
    who, state = words
    if state not in ("on", "off"):
        raise Misuse("voting is on or off")
    for player in stage.named(who):
        stage.feed(player, VotingAllowed(state == "on"), f"{player.name}: voting {state}")


def slow(stage: Stage, words: list[str]) -> None:
    """The executor of these validators answers nothing until told with `checked`: bytes are missing, or it takes long."""
    (who,) = words
    for player in stage.named(who):
        player.is_slow = True


def checked(stage: Stage, words: list[str]) -> None:
    who, name = words
    for player in stage.named(who):
        stage.check(player, name)


def invalid(stage: Stage, words: list[str]) -> None:
    """Executing this block does not give its roots."""
    (name,) = words
    stage.digest(name)
    stage.invalid.append(name)


def give(stage: Stage, words: list[str]) -> None:
    """The bytes of a block arrive at validators that asked for them."""
    who, name = words
    for player in stage.named(who):
        stage.feed(player, BlockHeld(stage.block(name)), f"{player.name}: {name} is here")


def learn(stage: Stage, words: list[str]) -> None:
    """A certificate arrives from somebody who has decided: `learn d v0 B1 by a b c`."""
    who, view_word, name, by, *signers = words
    if by != "by":
        raise Misuse("a certificate reads v0 B1 by a b c")
    view, proposal = view_of(view_word), stage.block(name)
    height, digest = proposal.header.height, proposal.header.digest()
    certificate = Certificate(height, view, digest, stage.signatures(signers, COMMIT, height, view, digest))
    for player in stage.named(who):
        stage.feed(player, CertificateLearned(certificate), f"{player.name}: certificate of {' '.join(words[1:])}")


def adopt(stage: Stage, words: list[str]) -> None:
    """The engine got the decided block and executed it; the decision becomes durable with what this turn signs."""
    (who,) = words
    for player in stage.named(who):
        stage.feed(player, DecisionAdopted(), f"{player.name}: the decided block is adopted")


def next_height(stage: Stage, words: list[str]) -> None:
    """The engine applied the decided block and starts the next height."""
    (who,) = words
    for player in stage.named(who):
        if player.replica.decided is None:
            continue
        player.decided.append(player.replica.decided.digest)
        height = len(player.decided) + 1
        player.disk = []
        stage.feed(player, stage.start_height(player, height), f"{player.name}: start height {height}", is_always_told=False)


def crash(stage: Stage, words: list[str]) -> None:
    """`crash c` at once; `crash c before-writing` or `crash c before-sending` in its next turn that writes."""
    who, *where = words
    if where and where[0] not in ("before-writing", "before-sending"):
        raise Misuse("a crash is now, before-writing or before-sending")
    for player in stage.named(who):
        if where:
            player.dies = where[0]
        else:
            stage.kill(player)


def restart(stage: Stage, words: list[str]) -> None:
    """Start again with what the disk holds; `not-voting` while the amnesia check is not passed."""
    who, *how = words
    if how not in ([], ["not-voting"]):
        raise Misuse("a restart is plain or not-voting")
    for player in stage.named(who):
        stage.boot(player, is_voting=not how)


def backup(stage: Stage, words: list[str]) -> None:
    (who,) = words
    for player in stage.named(who):
        player.backup = list(player.disk)


def restore(stage: Stage, words: list[str]) -> None:
    """The disk of a validator that is down holds again what it held at its backup."""
    (who,) = words
    for player in stage.named(who):
        if player.is_up:
            raise Misuse(f"{player.name} must be down while its disk is restored")
        player.disk = list(player.backup)


def status(stage: Stage, words: list[str]) -> None:
    for player in stage.named(words[0]) if words else list(stage.players.values()):
        stage.lines.append(f"{player.name}  {describe(stage, player)}")


def describe(stage: Stage, player: Player) -> str:
    if player.name in stage.liars:
        return "liar"
    if not player.is_up:
        return "down"
    facts = player.replica.explain()
    left, reasons = facts["timer_left_ms"], ", ".join(facts["timer_runs_because"])
    timer = "no timer" if left is None else f"{left} ms left because {reasons}"
    leader = stage.leader(player.replica.height, player.replica.view)
    silent = "" if facts["is_voting"] or player.replica.decided else "; not voting"
    return f"height {facts['height']} v{facts['view']} led by {leader}; {facts['phase']}; {timer}{silent}"


COMMANDS: Final[dict[str, Callable[[Stage, list[str]], None]]] = {
    "start": start,
    "block": block,
    "propose": propose,
    "say": say,
    "echo": echo,
    "deliver": deliver,
    "duplicate": duplicate,
    "drop": drop,
    "settle": settle,
    "cut": cut,
    "heal": heal,
    "tick": tick,
    "clock": clock,
    "situation": situation,
    "voting": voting,
    "slow": slow,
    "checked": checked,
    "invalid": invalid,
    "give": give,
    "learn": learn,
    "adopt": adopt,
    "next": next_height,
    "crash": crash,
    "restart": restart,
    "backup": backup,
    "restore": restore,
    "status": status,
}
