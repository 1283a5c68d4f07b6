"""Four hospitals for tests of the custodian: engines, vaults on disk, listeners on loopback, a patient and two clinicians."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256

import aiohttp
import pytest
from aiohttp import web

import tests.engine.conftest as engines
from medchain.actions.access import request_access
from medchain.actions.custody import make_put_request, make_release_request, open_release
from medchain.actions.placement import designated_holders
from medchain.actions.records import size_class_of
from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_HYBRID, SUITE_X25519, OpeningKey
from medchain.crypto.signing import SigningKey
from medchain.crypto.streams import open_stream, seal_stream
from medchain.engine.ready import Accepted, Answered, BlockDecided, Queried, Refused, ReleaseAsked, Submitted
from medchain.errors import InvariantBroken, Rejected, Unavailable
from medchain.ledger.consents import HOSPITAL, Grant
from medchain.ledger.people import Credential, RegisterPatient, credential_bytes, pseudonym_of, registration_bytes
from medchain.node.custodian import Custodian, CustodianLimits
from medchain.node.replicas import ReplicaLimits
from medchain.vault.blobs import BlobLimits, BlobStore
from medchain.vault.wraps import WrapStore
from medchain.wire.custody import PutRequest, Release, ReleaseInfo, reader_key_digest

DEADLINE_SECONDS = 20
START_MS = engines.START_MS
DAY_MS = 86_400_000


def fixed(name: str) -> bytes:
    return sha256(name.encode()).digest()


def identity(role: str, name: str, suite: int = SUITE_HYBRID) -> Identity:
    return Identity(role, SigningKey(fixed(f"signing {name}")), OpeningKey.from_private_bytes(suite, fixed(f"opening {name}")))


async def until(condition, what: str = "") -> None:
    """Let other tasks run until something holds; fails after a deadline."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what or "the condition did not come true in time"
        await asyncio.sleep(0)


class House:
    """One hospital: its engine in the cluster, its vault on disk, its custodian, its listeners."""

    def __init__(self, world: World, index: int, folder) -> None:
        self.world, self.index, self.folder = world, index, folder
        self.identity = identity("hospital", f"hospital {index}", SUITE_HYBRID if index == 0 else SUITE_X25519)
        self.key = engines.key(f"{index} consensus").public
        self.is_reachable = True
        self.is_behind = False
        """Its node says that it catches up: nothing else tells its custodian."""
        self.asked: list[str] = []
        self.custodian: Custodian | None = None
        self.peer_port = self.client_port = 0
        self.failures: list[InvariantBroken] = []
        self.served: list[str] = []

    @property
    def organisation(self) -> bytes:
        return self.identity.signing.public

    @property
    def node(self):
        return self.world.cluster.nodes[self.index]

    # ---- the desk ----

    def ask(self, event):
        ready = self.node.handle(event)
        answers = [reply for reply in ready.replies if isinstance(reply, Accepted | Answered | Refused) and reply.request == 77]
        if isinstance(answers[0], Refused):
            if answers[0].retry_after_ms:
                raise Unavailable(answers[0].message, answers[0].retry_after_ms)
            raise Rejected(answers[0].code, answers[0].message)
        return answers[0]

    async def query(self, method, **params):
        self.asked.append(method)
        answer = self.ask(Queried(77, method, params)).result
        return answer | {"is_catching_up": True} if self.is_behind and method == "node.status" else answer

    async def ask_release(self, permit):
        return self.ask(ReleaseAsked(77, permit)).result

    async def submit(self, transaction):
        return self.ask(Submitted(77, transaction))

    async def wait(self, transaction_id, timeout_ms):
        for _ in range(min(timeout_ms, self.world.patience_ms) // engines.TICK_MS):
            status = await self.query("tx.status", id=transaction_id)
            if status["status"] in ("decided", "expired"):
                return status
            self.world.cluster.tick()
            await asyncio.sleep(0)
        return await self.query("tx.status", id=transaction_id)

    def wall_ms(self) -> int:
        return START_MS + self.world.cluster.now_ms + self.world.clock_ahead_ms

    # ---- the custodian ----

    def make(self, **limits) -> None:
        """A custodian on what the folder holds."""
        self.blobs = BlobStore(self.folder, BlobLimits(disk_free_bytes_min=0))
        self.wraps = WrapStore(self.folder / "wraps", self.identity.opening, self.world.network)
        self.custodian = Custodian(
            identity=self.identity,
            genesis=self.world.genesis,
            network=self.world.network,
            desk=self,
            blobs=self.blobs,
            wraps=self.wraps,
            clock=self,
            open_peer=self.open_peer,
            failed=self.failures.append,
            limits=CustodianLimits(
                replicas=ReplicaLimits(pause_first_ms=1, pause_max_ms=20, confirm_pause_ms=0, **limits), settle_ms=20_000
            ),
        )

    async def open_peer(self, peer, method, path, *, data=None, headers=None):
        other = next(house for house in self.world.houses if house.key == peer)
        if not (other.is_reachable and self.is_reachable):
            raise Unavailable("the hospital cannot be reached", 1_000)
        url = f"http://127.0.0.1:{other.peer_port}{path}"
        return await self.world.session.request(method, url, data=data, headers={**(headers or {}), "Test-Peer": self.key.hex()})

    async def listen(self, stack: AsyncExitStack) -> None:
        @web.middleware
        async def known(request, handler):
            request["peer"] = bytes.fromhex(request.headers["Test-Peer"])
            self.served.append(f"{request.method} {request.path}")
            return await handler(request)

        async def current(request, kind):
            """The routes of the custodian there is now: tests make it anew."""
            routes = self.custodian.peer_routes() if kind == "peer" else self.custodian.client_routes()
            for route in routes:
                if route.method == request.method and route.path in (request.path, request.match_info.route.resource.canonical):
                    return await route.handler(request)
            raise web.HTTPMethodNotAllowed(request.method, [])

        for kind in ("peer", "client"):
            application = web.Application(middlewares=[known] if kind == "peer" else [])
            for path in ("/blobs/{root}", "/custody/release"):
                application.router.add_route("*", path, partial(current, kind=kind))
            runner = web.AppRunner(application, shutdown_timeout=0.2)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            setattr(self, f"{kind}_port", runner.addresses[0][1])

    def everything_on_disk(self) -> bytes:
        return b"".join(str(path).encode() + path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


class World:
    """Four hospitals, a patient of the first, clinicians at the second and third."""

    def __init__(self, tmp_path, monkeypatch) -> None:
        self.patience_ms = 20_000
        self.clock_ahead_ms = 0
        self.houses = [House(self, index, tmp_path / f"h{index}") for index in range(4)]
        monkeypatch.setattr(engines, "make_genesis", lambda count, **parameters: self.make_genesis(**parameters))
        self.cluster = engines.Cluster(4)
        self.genesis = self.cluster.genesis
        self.network: Domain = self.cluster.network
        for house in self.houses:
            self.watch(house)
        self.cluster.warm()
        self.a, self.b, self.c, self.d = self.houses
        self.lee, self.kim = (identity("clinician", name, suite) for name, suite in (("lee", SUITE_HYBRID), ("kim", SUITE_X25519)))
        self.ann = identity("patient", "ann")
        self.pseudonym = pseudonym_of(self.ann.signing.public)

    def make_genesis(self, **parameters) -> Genesis:
        members = [
            Hospital(
                name=f"Hospital {house.index}",
                role="validator",
                consensus_key=house.key,
                officer_key=engines.key(f"{house.index} officer").public,
                organisation_key=house.organisation,
                opening_suite=house.identity.opening.suite,
                opening_key=house.identity.opening.public,
                certificate=b"certificate of %d" % house.index,
                endpoints=(f"h{house.index}.example:7000",),
            )
            for house in self.houses
        ]
        members.sort(key=lambda hospital: hospital.consensus_key)
        settings = {"state_buckets": 64, "heartbeat_ms": 30_000, "expiry_window_blocks": 500} | parameters
        return Genesis("test", START_MS, Parameters(**settings), tuple(members))

    def watch(self, house) -> None:
        """Tell the custodian of what its own node decides."""
        node, handle = house.node, house.node.handle

        def handled(*events):
            ready = handle(*events)
            for reply in ready.replies:
                if isinstance(reply, BlockDecided) and house.custodian is not None:
                    house.custodian.observe(reply)
            return ready

        node.handle = handled

    async def settle(self, signer: Identity, *operations, at: House | None = None, code: str = ""):
        """Decide a transaction of anybody on every node; return its status."""
        house = at or self.a
        body = TransactionBody("test", signer.signing.public, house.node.height + 100, tuple(operations), secrets.token_bytes(8))
        transaction = Transaction.sign(body, signer.signing, self.network)
        await house.submit(transaction)
        self.cluster.run_until(lambda: self.cluster.is_decided(transaction))
        status = await house.query("tx.status", id=transaction.id)
        assert status["code"] == code
        return status

    async def found(self) -> None:
        """The patient, the clinicians."""
        for clinician, house in ((self.lee, self.b), (self.kim, self.c)):
            await self.credential(clinician, house)
        await self.register_patient(self.ann)

    async def credential(self, clinician: Identity, house: House, role: str = "physician") -> None:
        opening, until_ms = clinician.opening, self.wall() + 30 * DAY_MS
        proof = clinician.signing.sign(credential_bytes(self.network, house.organisation, opening.suite, opening.public))
        credential = Credential(clinician.signing.public, opening.suite, opening.public, role, "general", until_ms, proof)
        await self.settle(house.identity, credential.operation())

    async def register_patient(self, patient: Identity, at: House | None = None) -> bytes:
        house, opening = at or self.a, patient.opening
        proof = patient.signing.sign(registration_bytes(self.network, house.organisation, opening.suite, opening.public))
        await self.settle(house.identity, RegisterPatient(patient.signing.public, opening.suite, opening.public, proof).operation())
        return pseudonym_of(patient.signing.public)

    def wall(self) -> int:
        return START_MS + self.cluster.now_ms

    async def grant(self, house: House | None = None, category: str = "general") -> bytes:
        grant = Grant(HOSPITAL, (house or self.b).organisation, "TREAT", category, 0, self.wall() + 7 * DAY_MS)
        return (await self.settle(self.ann, grant.operation()))["events"][0]["fields"]["consent"]

    async def ask(self, record: bytes, clinician: Identity | None = None, at: House | None = None) -> bytes:
        """A request that is permitted; returns the permit."""
        status = await self.settle(clinician or self.lee, request_access(record, "TREAT", "physician"), at=at or self.b)
        (event,) = status["events"]
        assert event["kind"] == "access.permit", event
        return event["fields"]["permit"]


class Sealed:
    """A record version sealed by its author for the first hospital."""

    def __init__(self, world: World, name: str = "one", *, version: int = 1, record: bytes | None = None, length: int = 50_000) -> None:
        self.world = world
        self.record = record or fixed(f"record {name}")
        self.version = version
        self.key = fixed(f"data key {name} {version}")
        self.plaintext = (fixed(f"content {name} {version}") * (length // 32 + 1))[:length]
        sink = io.BytesIO()
        self.stream = seal_stream(io.BytesIO(self.plaintext), length, self.key, self.record, sink, segment_bytes=4096)
        self.bytes = sink.getvalue()

    @property
    def root(self) -> bytes:
        return self.stream.root

    async def upload(self, blobs: BlobStore) -> None:
        async def chunks():
            yield self.bytes

        await blobs.write_range(self.root, blobs.received(self.root), chunks(), total=len(self.bytes))
        await blobs.finish(self.root)

    def request(self, author: Identity | None = None, network: Domain | None = None, key: bytes | None = None, **changes) -> PutRequest:
        author = author or self.world.a.identity
        opening = self.world.a.identity.opening
        request = PutRequest(
            record=self.record, version=self.version, pseudonym=self.world.pseudonym, category="general", kind="fhir-bundle",
            size_class=size_class_of(len(self.plaintext)), root=self.root, segment_count=self.stream.segment_count,
            author=author.signing.public, coarse_date=202611, label_tokens=(), sealed_key=b"",
        )  # fmt: skip
        request = replace(request, **changes)
        return make_put_request(network or self.world.network, request, author.signing, key or self.key, opening.suite, opening.public)

    async def put(self) -> dict:
        """Upload and register."""
        await self.upload(self.world.a.blobs)
        return await self.world.a.custodian.put(self.request().encode())


@asynccontextmanager
async def making(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    async with AsyncExitStack() as stack:
        world.session = await stack.enter_async_context(aiohttp.ClientSession())
        for house in world.houses:
            house.make()
            await house.listen(stack)
        await world.found()
        yield world
        for house in world.houses:
            await house.custodian.stop()
        assert [failure for house in world.houses for failure in house.failures] == []


async def refusal(work, kind=Rejected) -> str:
    """The code with which something is refused."""
    with pytest.raises(kind) as caught:
        await work
    return caught.value.code


async def permitted(world: World) -> tuple[Sealed, bytes, bytes]:
    """A record in custody of the first hospital, the consent to the second, and the permit of its clinician."""
    sealed = Sealed(world)
    await sealed.put()
    consent = await world.grant()
    return sealed, consent, await world.ask(sealed.record)


async def open_by(world: World, reader: Identity, release: bytes, permit: bytes, sealed: Sealed, epoch: int = 1) -> bytes:
    """What a reader does with a release: check it against the chain, open the data key, open the blob."""
    noun = Release.decode(release)
    expected = ReleaseInfo(
        genesis=world.network.genesis, suite=reader.opening.suite, custodian=world.a.organisation, pseudonym=world.pseudonym,
        category="general", epoch=epoch, record=sealed.record, version=sealed.version, permit=permit,
        reader_key_digest=reader_key_digest(reader.opening.public),
    )  # fmt: skip
    data_key = open_release(world.network, noun, expected, reader.opening)
    sink = io.BytesIO()
    open_stream(io.BytesIO(sealed.bytes), data_key, sealed.root, sink)
    return sink.getvalue()


def asked(world: World, permit: bytes, reader: Identity | None = None, challenge: bytes | None = None) -> bytes:
    return make_release_request(world.network, permit, (reader or world.lee).signing, challenge or os.urandom(32)).encode()


def holders_of(world: World, record: bytes) -> list[House]:
    """The hospitals designated to hold a record, in order."""
    by_key = {house.organisation: house for house in world.houses}
    return [by_key[key] for key in designated_holders(record, world.a.organisation, sorted(by_key))]


def stranger_of(world: World, sealed: Sealed) -> House:
    """The one hospital that is neither custodian nor designated."""
    return next(house for house in world.houses[1:] if house not in holders_of(world, sealed.record))


def strange_to_b(world: World) -> Sealed:
    """A record that hospital b is not designated to hold."""
    many = (Sealed(world, f"record {index}") for index in range(99))
    return next(sealed for sealed in many if stranger_of(world, sealed) is world.b)
