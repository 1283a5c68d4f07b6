"""The main story (node.md): one record shared end to end by hospitals that do not trust each other, step by step.

Played by `medchain demo` and by the tests, on any file. Each step raises InvariantBroken when anything is other than it must be.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medchain.cli.progress import amount
from medchain.cli.stage import Scene, Stage
from medchain.errors import InvariantBroken

if TYPE_CHECKING:
    from medchain.testnet.launch import Testnet

NET: Final = "net"
PATIENT: Final = "patient.key"
LEE: Final = "lee.key"
KIM: Final = "kim.key"
CATEGORY: Final = "general"
DENIED: Final = 1
SETTLE_SECONDS: Final = 60.0
"""For replicas to arrive and roots to meet; takes some tenths of a second on an idle machine."""
BACK_SECONDS: Final = 10.0
"""A killed hospital is back within this time (issue: must hold)."""
POLL_SECONDS: Final = 0.02


class Story:
    """Plays on `stage`, inside `folder`, with the file `record`. `begin` first, then `play`."""

    def __init__(self, stage: Stage, folder: Path, record: str) -> None:
        self._stage = stage
        self._folder = folder
        self._input = record
        self._names: list[str] = []
        self.network: Testnet | None = None
        self._patient = self._lee = self._record = ""
        self._emergency = ""
        """Id of the transaction that broke the glass."""

    def begin(self, hospitals: int) -> None:
        """Start the hospitals; from then on `network` is what must be stopped."""
        with self._stage.scene(
            f"{hospitals} hospitals start",
            "Each is a process of its own with its own keys, its own LevelDB store and its own ports; they know each other by the "
            f"certificates in the genesis document and by nothing else. Of these {hospitals}, {(hospitals - 1) // 3} may fail or lie.",
        ) as scene:
            self._stage.show(scene, "testnet", "up", "--hospitals", str(hospitals), "--home", NET, "--base-port", "0", "--detach")
            from medchain.testnet.launch import Testnet

            network = self.network = Testnet.open_or_make(self._folder / NET, hospitals, 0)
            network.start()
            network.wait_ready()
            self._names = [seat.name for seat in network.plan.seats]
            self._stage.result(scene, "ready: " + ", ".join(f"{seat.name} at {seat.rpc_url}" for seat in network.plan.seats))

    def play(self) -> dict[str, Any]:
        """Play the steps and return what is known at the end: record, pseudonym, hospitals, the state root they share."""
        rows = [{"name": seat.name, "rpc": seat.rpc_url} for seat in self._running.plan.seats]
        self._people()
        self._put()
        self._denied_without_consent()
        self._grant()
        self._read()
        self._denied_for_another_purpose()
        self._revoke()
        self._break_glass()
        self._trail()
        self._prove()
        self._kill_and_return()
        root = self._same_roots()
        return {"record": self._record, "pseudonym": self._patient, "state_root": root, "hospitals": rows}

    # ---- the steps -----------------------------------------------------------------------------------------------------------

    def _people(self) -> None:
        stage = self._stage
        with stage.scene(
            "Two clinicians are credentialed and a patient is registered",
            "A hospital vouches for its own people on the chain. The patient is a pseudonym there, made of a key that is fresh for this "
            "hospital: no name, no birthday, nothing that two hospitals could match.",
        ) as scene:
            for name, place, role in (("LEE", "b", "physician"), ("KIM", "c", "physician")):
                out = f"{name.lower()}.key"
                known = stage.run(
                    scene, "clinician", "credential", "--as", f"{NET}/{place}/org.key", "--role", role, "--expires", "30d", "--out", out
                )
                stage.result(scene, f"{stage.call(name, known['clinician'])[:16]}… is a {role} of hospital {place}")
            self._lee = stage.names["LEE"]
            known = stage.run(scene, "patient", "register", "--at", f"{NET}/a", "--out", PATIENT)
            self._patient = stage.call("PATIENT", known["pseudonym"])
            stage.result(scene, f"pseudonym {self._patient[:16]}… in block {known['height']}")

    def _put(self) -> None:
        stage = self._stage
        size = (self._folder / self._input).stat().st_size
        with stage.scene(
            "Hospital a seals the patient's record and registers it",
            "The chain got a digest of ciphertext, a category and an epoch; the sealed bytes lie with the custodian and two further "
            "hospitals, who confirmed it on the chain and cannot open them.",
        ) as scene:
            known = stage.run(scene, "record", "put", self._input, "--at", f"{NET}/a", "--patient", self._patient, "--category", CATEGORY)
            self._record = stage.call("RECORD", known["record"])
            stage.result(scene, f"{amount(size)} sealed, root {known['root'][:16]}…, registered in block {known['height']}")
            began = time.monotonic()
            holders = self._until("three hospitals hold the sealed record", self._holders, lambda found: len(found) >= 3)
            stage.result(scene, f"held by {', '.join(holders)} after another {time.monotonic() - began:.2f} s")

    def _denied_without_consent(self) -> None:
        stage = self._stage
        with stage.scene(
            "Hospital b's clinician asks, and is denied",
            "Nothing permits, so the answer is no: the same on every hospital, because each decides by the rules alone. The denial itself "
            "is on the patient's trail.",
        ) as scene:
            answer = self._ask(scene, LEE, "b", "TREAT", expect=DENIED)
            self._check(answer["code"] == "consent.none", "without a consent the answer is consent.none")
            self._tell_verdict(scene, answer)
            self._check("access.denial" in self._kinds(), "the denial is on the record's trail")

    def _grant(self) -> None:
        stage = self._stage
        with stage.scene(
            "The patient grants treatment to that clinician",
            "Only the patient's key can sign this. One purpose, one category, one clinician, until a day.",
        ) as scene:
            known = stage.run(
                scene, "consent", "grant", "--as", PATIENT, "--at", f"{NET}/a", "--to", self._lee, "--purpose", "TREAT",
                "--category", CATEGORY, "--until", "30d",
            )  # fmt: skip
            stage.call("CONSENT", known["consent"])
            stage.result(scene, f"consent {known['consent'][:16]}… in block {known['height']}")

    def _read(self) -> None:
        stage = self._stage
        with stage.scene(
            "She asks again, is permitted, and reads",
            "The key went out only after the permit and the release were final on the chain, sealed to this one reader, for this one "
            "version; what was opened is the original, byte for byte.",
        ) as scene:
            answer = self._ask(scene, LEE, "b", "TREAT")
            self._tell_verdict(scene, answer)
            stage.run(scene, "record", "get", self._record, "--as", LEE, "--at", f"{NET}/b", "--out", "copy")
            self._tell_same(scene, "copy")

    def _denied_for_another_purpose(self) -> None:
        with self._stage.scene(
            "She asks for research instead, and is denied", "A consent is for its purpose and for no other."
        ) as scene:
            answer = self._ask(scene, LEE, "b", "HRESCH", expect=DENIED)
            self._check(answer["code"] == "consent.purpose", "for another purpose the answer is consent.purpose")
            self._tell_verdict(scene, answer)

    def _revoke(self) -> None:
        stage = self._stage
        with stage.scene(
            "The patient revokes; from the next block on she is denied",
            "A revocation is felt at once: asking again is denied, and even the permit that still had time on it opens nothing any more.",
        ) as scene:
            known = stage.run(scene, "consent", "revoke", stage.names["CONSENT"], "--as", PATIENT, "--at", f"{NET}/a")
            stage.result(scene, f"revoked in block {known['height']}")
            answer = self._ask(scene, LEE, "b", "TREAT", expect=DENIED)
            self._check(answer["code"] == "consent.revoked", "after the revocation the answer is consent.revoked")
            self._tell_verdict(scene, answer)
            refused = stage.run(
                scene, "record", "get", self._record, "--as", LEE, "--at", f"{NET}/b", "--out", "second-copy", expect=DENIED
            )
            self._check(not (self._folder / "second-copy").exists(), "a refused reading leaves no file")
            stage.result(scene, f"no key under the old permit either: {refused['error']['code']}")

    def _break_glass(self) -> None:
        stage = self._stage
        with stage.scene(
            "A clinician at hospital c breaks the glass, and reads",
            "An emergency opens at once, without consent, for four hours, and for a credentialed clinician only. It is on the trail, and "
            "a review at the patient's hospital opened by itself, due in three days.",
        ) as scene:
            answer = stage.run(
                scene, "access", "emergency", self._record, "--as", KIM, "--at", f"{NET}/c", "--reason", "UNCONSCIOUS"
            )
            self._emergency = stage.call("EMERGENCY", answer["transaction"])
            self._tell_verdict(scene, answer)
            stage.run(scene, "record", "get", self._record, "--as", KIM, "--at", f"{NET}/c", "--out", "emergency-copy")
            self._tell_same(scene, "emergency-copy")
            open_reviews = stage.run(scene, "access", "emergencies", "--at", f"{NET}/a", "--open")["emergencies"]
            self._check([row["permit"] for row in open_reviews] == [answer["permit"]], "exactly this emergency awaits review")
            stage.result(scene, f"1 review is open, for {open_reviews[0]['reason']}")

    def _trail(self) -> None:
        stage = self._stage
        with stage.scene(
            "The patient reads the trail",
            "Every step is there, and nothing was left out, changed or moved: the running digest of these very events is the one that "
            "the hospitals certified in the state.",
        ) as scene:
            trail = stage.run(scene, "access", "trail", self._patient, "--as", PATIENT, "--at", f"{NET}/a")
            kinds = [event["kind"] for event in trail["events"]]
            for kind in _MUST_BE_ON_TRAIL:
                self._check(kind in kinds, f"{kind} is on the patient's trail")
            for event in trail["events"]:
                stage.result(scene, f"block {event['height']:>3}  {event['kind']:<24} {event['summary']}")
            self._check(trail["is_verified"], "the trail is proven complete")
            stage.result(scene, f"{trail['count']} events, digest {trail['digest'][:16]}… as certified in block {trail['height']}")

    def _prove(self) -> None:
        stage, genesis = self._stage, f"{NET}/genesis.json"
        with stage.scene(
            "A proof file is checked offline, with the genesis document alone",
            "Without any node: transaction, path, block header, certificate of a quorum. One changed byte, and it fails.",
        ) as scene:
            stage.run(scene, "tx", "proof", self._emergency, "--at", f"{NET}/c", "--out", "proof.bin")
            facts = stage.run(scene, "verify", "proof.bin", "--genesis", genesis)
            stage.result(scene, f"valid, in block {facts['height']}; {(self._folder / 'proof.bin').stat().st_size} bytes")
            forged = bytearray((self._folder / "proof.bin").read_bytes())
            forged[len(forged) // 2] ^= 1
            (self._folder / "forged.bin").write_bytes(forged)
            refused = stage.run(scene, "verify", "forged.bin", "--genesis", genesis, expect=2)
            stage.result(scene, f"one byte changed: {refused['error']['message']}")

    def _kill_and_return(self) -> None:
        stage, network = self._stage, self._running
        victim = self._names[-1]
        with stage.scene(
            f"Hospital {victim} is killed; work goes on; it comes back",
            "A power cut at one hospital stops nobody. Back again, it fetches what it missed, checks every block itself, and votes.",
        ) as scene:
            stage.show(scene, "testnet", "kill", victim, "--home", NET)
            network.kill(victim)
            before = self._heights()["a"]
            self._grant_again(scene)
            answer = self._ask(scene, LEE, "b", "TREAT")
            self._tell_verdict(scene, answer)
            stage.run(scene, "record", "get", self._record, "--as", LEE, "--at", f"{NET}/b", "--out", "later-copy")
            self._tell_same(scene, "later-copy")
            stage.result(scene, f"without {victim}: {self._heights()['a'] - before} blocks were decided")
            stage.show(scene, "testnet", "restart", victim, "--home", NET)
            began = time.monotonic()
            network.start([victim])
            network.wait_ready([victim])
            self._until(f"hospital {victim} has caught up", self._heights, lambda found: found.get(victim, -1) >= found["a"])
            seconds = time.monotonic() - began
            self._check(seconds < BACK_SECONDS, f"hospital {victim} is back within {BACK_SECONDS:.0f} s")
            stage.result(scene, f"{victim} is back, caught up and voting after {seconds:.2f} s")

    def _grant_again(self, scene: Scene) -> None:
        known = self._stage.run(
            scene, "consent", "grant", "--as", PATIENT, "--at", f"{NET}/a", "--to", "b", "--purpose", "TREAT", "--category", CATEGORY,
            "--until", "30d",
        )  # fmt: skip
        self._stage.result(scene, f"a new consent, for all of hospital b, in block {known['height']}")

    def _same_roots(self) -> str:
        stage = self._stage
        with stage.scene(
            f"All {len(self._names)} hospitals report the same state",
            "Each computed its state root by itself from the same blocks: one root means that nobody sees another truth.",
        ) as scene:
            stage.show(scene, "testnet", "status", "--home", NET)
            found = self._until("all state roots are equal", self._roots, lambda roots: len({*roots.values()}) == 1)
            self._check(len(found) == len(self._names), "every hospital answers")
            height: int
            root: str
            height, root = found[self._names[0]]
            for name in self._names:
                stage.result(scene, f"{name}  height {height}  state root {root}")
        return root

    # ---- asking ----------------------------------------------------------------------------------------------------------------

    @property
    def _running(self) -> Testnet:
        if self.network is None:
            raise InvariantBroken("the story was played before its network was started")
        return self.network

    def _ask(self, scene: Scene, key: str, place: str, purpose: str, *, expect: int = 0) -> dict[str, Any]:
        return self._stage.run(
            scene, "access", "request", self._record, "--as", key, "--at", f"{NET}/{place}", "--purpose", purpose, expect=expect
        )

    def _tell_verdict(self, scene: Scene, answer: dict[str, Any]) -> None:
        self._stage.result(scene, f"{answer['result']}{' ' + answer['code'] if answer['code'] else ''}, in block {answer['height']}")

    def _tell_same(self, scene: Scene, copy: str) -> None:
        original, opened = self._folder / self._input, self._folder / copy
        digest = _digest_of(opened)
        self._check(digest == _digest_of(original), "the copy equals the original")
        self._stage.result(scene, f"{amount(opened.stat().st_size)} opened, SHA-256 {digest[:16]}… equals the original's")

    def _events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self._stage.ask("record", "history", self._record, "--at", f"{NET}/a")["events"]
        return events

    def _kinds(self) -> list[str]:
        return [event["kind"] for event in self._events()]

    def _holders(self) -> list[str]:
        versions = self._stage.ask("record", "show", self._record, "--at", f"{NET}/a")["versions"]
        return list(versions[-1]["holder_names"])

    def _heights(self) -> dict[str, int]:
        return {name: height for name, (height, _) in self._roots().items()}

    def _roots(self) -> dict[str, tuple[int, str]]:
        rows = self._running.status()
        return {row.name: (row.status["height"], row.status["state_root"]) for row in rows if row.status is not None}

    def _until(self, what: str, look: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
        """Look until it is so, and return what was seen. Raises InvariantBroken after a minute."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not is_so(found := look()):
            if time.monotonic() > deadline:
                raise InvariantBroken(f"within {SETTLE_SECONDS:.0f} s it did not come about that {what}")
            time.sleep(POLL_SECONDS)
        return found

    def _check(self, is_so: bool, claim: str) -> None:
        if not is_so:
            raise InvariantBroken(f"the story did not go as it must: it is not so that {claim}")


_MUST_BE_ON_TRAIL: Final = (
    "people.register_patient", "records.register", "records.confirm_custody", "access.denial", "consents.grant", "access.permit",
    "access.release", "access.receipt", "consents.revoke", "access.emergency", "access.read_trail",
)  # fmt: skip


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
