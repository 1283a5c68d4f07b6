"""The custodian on whole engines: real chain, real files, real sealing, real sockets between the hospitals (TLS is the network's affair)."""

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
from medchain.actions.access import confirm_reading, declare_emergency, request_access, review_emergency
from medchain.actions.custody import make_put_request, make_release_request, open_release
from medchain.actions.placement import designated_holders
from medchain.actions.records import size_class_of
from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_HYBRID, SUITE_X25519, OpeningKey, unwrap_key
from medchain.crypto.signing import SigningKey
from medchain.crypto.streams import open_stream, seal_stream
from medchain.engine.ready import Accepted, Answered, BlockDecided, Queried, Refused, ReleaseAsked, Submitted
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.ledger.consents import HOSPITAL, Grant, Revoke
from medchain.ledger.people import Credential, RegisterPatient, RevokeCredential, pseudonym_of, registration_bytes
from medchain.node.custodian import Custodian, CustodianLimits
from medchain.node.replicas import ORPHAN_MS, ReplicaLimits
from medchain.vault.blobs import BlobLimits, BlobStore
from medchain.vault.wraps import WrapStore
from medchain.wire.custody import PutRequest, Release, ReleaseInfo, reader_key_digest

pytestmark = pytest.mark.asyncio

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
        return self.ask(Queried(77, method, params)).result

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
            limits=CustodianLimits(replicas=ReplicaLimits(pause_first_ms=1, pause_max_ms=20, **limits), settle_ms=20_000),
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
            opening = clinician.opening
            credential = Credential(clinician.signing.public, opening.suite, opening.public, "physician", "general", self.wall() + 30 * DAY_MS)
            await self.settle(house.identity, credential.operation())
        await self.register_patient(self.ann)

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


@pytest.fixture
def with_world(tmp_path, monkeypatch):
    """A world for the body of one test: `async with with_world() as world`."""
    return lambda: making(tmp_path, monkeypatch)


async def refusal(work, kind=Rejected) -> str:
    """The code with which something is refused."""
    with pytest.raises(kind) as caught:
        await work
    return caught.value.code


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


# ---- the whole way --------------------------------------------------------------------------------------------------------------


async def test_record_goes_into_custody_and_comes_out_to_the_permitted_reader_byte_for_byte(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        answer = await sealed.put()
        assert (answer["record"], answer["version"], answer["root"]) == (sealed.record, 1, sealed.root)
        row = await world.d.query("records.get", record=sealed.record)
        assert row["custodian"] == world.a.organisation and row["versions"][0]["holders"] == [world.a.organisation]
        assert row["versions"][0]["from_height"] == answer["height"]
        head = await world.b.query("epochs.head", pseudonym=world.pseudonym, category="general")
        assert (head["number"], head["is_interim"]) == (1, True)
        await world.grant()
        permit = await world.ask(sealed.record)
        facts = await world.b.custodian.fetch(sealed.record, 1)
        assert facts == {"root": sealed.root, "sealed_bytes": len(sealed.bytes), "received_bytes": len(sealed.bytes), "is_complete": True}
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        assert world.b.blobs.path(sealed.root).read_bytes() == sealed.bytes
        await world.settle(world.lee, confirm_reading(permit, 1), at=world.b)
        trail = await world.c.query("records.history", record=sealed.record, first=0, count=64)
        kinds = [event["kind"] for event in trail["events"]]
        assert kinds == ["records.register", "records.confirm_custody", "access.permit", "access.release", "access.receipt"]


async def test_nothing_on_any_disk_is_a_key_or_plaintext(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        await world.b.custodian.fetch(sealed.record, 1)
        release = await world.b.custodian.release(asked(world, permit))
        permit_key = world.lee.opening.open(Release.decode(release).sealed_permit_key, info=Release.decode(release).info.encode())
        epoch = world.a.wraps.epoch_key(world.pseudonym, "general", 1)
        assert unwrap_key(permit_key, Release.decode(release).wrapped_data_key) == sealed.key
        for house in world.houses:
            found = house.everything_on_disk() + b"".join(value for _, value in house.node.store.iterate(b"", b"\xff" * 64))
            for secret in (sealed.key, epoch.key, permit_key, sealed.plaintext[:32], house.identity.opening.private_bytes()):
                assert secret not in found and secret.hex().encode() not in found
        assert sealed.key not in release


async def test_all_disks_without_an_unlocked_key_open_nothing(with_world, tmp_path):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        thief = WrapStore(world.a.folder / "wraps", OpeningKey.generate(SUITE_HYBRID), world.network)
        with pytest.raises(Malformed):
            thief.epoch_key(world.pseudonym, "general", 1)


async def test_clinician_of_the_custodian_may_author(with_world):
    async with with_world() as world:
        author = identity("clinician", "author")
        opening = author.opening
        credential = Credential(author.signing.public, opening.suite, opening.public, "nurse", "general", world.wall() + DAY_MS)
        await world.settle(world.a.identity, credential.operation())
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        answer = await world.a.custodian.put(sealed.request(author).encode())
        assert answer["version"] == 1
        await world.settle(world.a.identity, RevokeCredential(author.signing.public).operation())
        later = Sealed(world, version=2, record=sealed.record)
        await later.upload(world.a.blobs)
        assert await refusal(world.a.custodian.put(later.request(author).encode())) == "custody.author"


# ---- taking into custody: refusals and retries ----------------------------------------------------------------------------------


async def test_put_refuses_by_code_and_leaves_the_state_as_it_was(with_world):
    async with with_world() as world:
        sealed, other = Sealed(world), Sealed(world, "other")
        put = world.a.custodian.put
        root = world.a.node.engine.head.state_root
        assert await refusal(put(sealed.request().encode())) == "custody.blob-missing"
        await sealed.upload(world.a.blobs)
        unsigned = replace(sealed.request(), coarse_date=202612).encode()
        assert await refusal(put(unsigned)) == "custody.signature"
        assert await refusal(put(sealed.request(network=Domain(bytes(32))).encode())) == "custody.signature"
        for stranger in (identity("clinician", "nobody"), world.lee, world.b.identity, world.ann):
            assert await refusal(put(sealed.request(stranger).encode())) == "custody.author"
        assert await refusal(put(sealed.request(segment_count=5).encode())) == "custody.blob-differs"
        assert await refusal(put(sealed.request(size_class=10).encode())) == "custody.blob-differs"
        assert await refusal(put(sealed.request(record=other.record).encode())) == "custody.blob-differs"
        assert await refusal(put(sealed.request(version=2).encode())) == "custody.version-order"
        assert await refusal(put(sealed.request(pseudonym=fixed("nobody")).encode())) == "people.patient-unknown"
        assert await refusal(world.b.custodian.put(sealed.request().encode())) == "custody.not-custodian"
        assert world.a.node.engine.head.state_root == root
        assert not (world.a.folder / "wraps" / "epochs").exists() or not any((world.a.folder / "wraps" / "epochs").iterdir())


async def test_put_refuses_bytes_that_are_no_request(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        whole = sealed.request().encode()
        hostile = [b"", b"\xc1", whole[:-1], whole + b"\0", b"\x90" * 20_000]
        hostile += [sealed.request(coarse_date=202613).encode(), sealed.request(label_tokens=(b"\2" * 32, b"\1" * 32)).encode()]
        hostile += [sealed.request(kind="two words").encode(), sealed.request(size_class=60).encode()]
        hostile.append(sealed.request(version=0).encode())
        hostile += [sealed.request(key=b"\1" * 32).encode(), sealed.request(key=b"short").encode()]  # opens, but is not the blob's key
        sealed_elsewhere = replace(sealed.request(), sealed_key=Sealed(world, "other").request().sealed_key)
        hostile.append(sealed_elsewhere.signed(world.network, world.a.identity.signing).encode())
        for data in hostile:
            assert await refusal(world.a.custodian.put(data), Malformed) == "malformed"


async def test_same_put_again_changes_nothing(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        first = await sealed.put()
        height = world.a.node.height
        assert await world.a.custodian.put(sealed.request().encode()) == first
        assert world.a.node.height == height
        assert (await world.a.query("records.get", record=sealed.record))["version"] == 1


async def test_same_put_twice_at_once_registers_once(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        requests = [world.a.custodian.put(sealed.request().encode()) for _ in range(3)]
        answers = await asyncio.gather(*requests)
        assert answers[0] == answers[1] == answers[2]
        assert (await world.a.query("records.history", record=sealed.record, first=0, count=9))["count"] == 2


async def test_puts_of_one_patient_at_once_share_an_epoch(with_world):
    async with with_world() as world:
        many = [Sealed(world, f"record {index}", length=100) for index in range(4)]
        await asyncio.gather(*(sealed.put() for sealed in many))
        epochs = {(await world.a.query("records.get", record=sealed.record))["versions"][0]["epoch"] for sealed in many}
        assert epochs == {1}


async def test_put_that_was_decided_after_its_asker_gave_up_is_found_on_the_next_try(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        world.patience_ms = 0
        with pytest.raises(Unavailable):
            await world.a.custodian.put(sealed.request().encode())
        world.patience_ms = 20_000
        answer = await world.a.custodian.put(sealed.request().encode())
        row = await world.a.query("records.get", record=sealed.record)
        assert row["versions"][0]["from_height"] == answer["height"] and row["version"] == 1
        await world.grant()
        permit = await world.ask(sealed.record)
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext


async def test_epoch_key_is_durable_before_its_check_value_goes_on_chain(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        submitted = []
        submit = world.a.submit

        async def looking(transaction):
            again = WrapStore(world.a.folder / "wraps", world.a.identity.opening, world.network)  # what a restart would find
            operations = transaction.body.operations
            assert [operation.kind for operation in operations] == ["epochs.interim", "records.register", "records.confirm_custody"]
            epoch = again.epoch_key(world.pseudonym, "general", 1)
            assert epoch.is_of(world.network, operations[0].payload[3])
            wrap = again.wrap(sealed.record, 1, operations[1].payload[-1])
            assert again.data_key(epoch, wrap) == sealed.key
            submitted.append(transaction)
            return await submit(transaction)

        world.a.submit = looking
        await world.a.custodian.put(sealed.request().encode())
        assert len(submitted) == 1


async def test_crash_after_the_epoch_key_was_stored_leaves_nothing_in_the_way(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        submit = world.a.submit

        async def crash(transaction):
            raise Unavailable("the process dies here")

        world.a.submit = crash
        with pytest.raises(Unavailable):
            await world.a.custodian.put(sealed.request().encode())
        world.a.submit = submit
        world.a.make()
        await world.a.custodian.put(sealed.request().encode())
        head = await world.a.query("epochs.head", pseudonym=world.pseudonym, category="general")
        assert head["number"] == 1 and world.a.wraps.epoch_key(world.pseudonym, "general", 1).is_of(world.network, head["check_value"])


async def test_version_after_a_revocation_is_sealed_under_a_new_epoch(with_world):
    async with with_world() as world:
        first = Sealed(world)
        await first.put()
        consent = await world.grant()
        second = Sealed(world, version=2, record=first.record)
        await second.put()
        await world.settle(world.ann, Revoke(consent).operation())
        third = Sealed(world, version=3, record=first.record)
        await third.put()
        versions = (await world.a.query("records.get", record=first.record))["versions"]
        assert [version["epoch"] for version in versions] == [1, 1, 2]
        await world.grant()
        permit = await world.ask(first.record)
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, third, epoch=2) == third.plaintext


async def test_revocation_between_reading_the_epoch_and_the_block_makes_the_put_anew(with_world):
    async with with_world() as world:
        first = Sealed(world)
        await first.put()
        consent = await world.grant()
        second = Sealed(world, version=2, record=first.record)
        await second.upload(world.a.blobs)
        submit, revoked = world.a.submit, []

        async def late(transaction):
            if not revoked:
                revoked.append(await world.settle(world.ann, Revoke(consent).operation(), at=world.d))
            return await submit(transaction)

        world.a.submit = late
        await world.a.custodian.put(second.request().encode())
        versions = (await world.a.query("records.get", record=first.record))["versions"]
        assert [version["epoch"] for version in versions] == [1, 2]


async def test_lost_epoch_key_does_not_stop_the_hospital_from_sealing(with_world):
    async with with_world() as world:
        first = Sealed(world)
        await first.put()
        world.a.wraps.shred_epoch_key(world.pseudonym, "general", 1)
        second = Sealed(world, version=2, record=first.record)
        await second.put()
        versions = (await world.a.query("records.get", record=first.record))["versions"]
        assert [version["epoch"] for version in versions] == [1, 2]


async def test_record_id_version_and_patient_cannot_be_taken_over(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        put = world.a.custodian.put
        rival = Sealed(world, "rival", record=sealed.record)
        await rival.upload(world.a.blobs)
        assert await refusal(put(rival.request().encode())) == "custody.version-taken"
        bob = identity("patient", "bob")
        pseudonym = await world.register_patient(bob)
        assert await refusal(put(rival.request(pseudonym=pseudonym, version=2).encode())) == "custody.record-differs"
        assert await refusal(put(rival.request(category="psy", version=2).encode())) == "custody.record-differs"
        assert await refusal(put(rival.request(version=3).encode())) == "custody.version-order"
        assert await refusal(world.b.custodian.put(rival.request(version=2).encode())) == "custody.not-custodian"


# ---- releasing ------------------------------------------------------------------------------------------------------------------


async def test_release_is_refused_by_code(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        for house in (world.a, world.b):
            release = house.custodian.release
            assert await refusal(release(asked(world, fixed("no permit")))) == "access.permit-unknown"
            assert await refusal(release(asked(world, permit, world.kim))) == "custody.not-reader"
            forged = make_release_request(Domain(bytes(32)), permit, world.lee.signing, bytes(32)).encode()
            assert await refusal(release(forged)) == "custody.signature"
            for data in (b"", b"\xc0", forged[:-1], b"\x91" * 20_000):
                assert await refusal(release(data), Malformed) == "malformed"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 0


async def test_nothing_is_released_after_the_revocation(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        await world.b.custodian.fetch(sealed.record, 1)
        again = asked(world, permit)
        await world.b.custodian.release(again)
        await world.settle(world.ann, Revoke(consent).operation())
        for house in (world.a, world.b):
            assert await refusal(house.custodian.release(asked(world, permit))) == "consent.revoked"
            assert await refusal(house.custodian.release(again)) == "consent.revoked"  # not even the answer given before
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 1


async def test_revocation_decided_before_the_announcement_wins(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        submit, revoked = world.a.submit, []

        async def late(transaction):
            if not revoked:
                revoked.append(await world.settle(world.ann, Revoke(consent).operation(), at=world.d))
            return await submit(transaction)

        world.a.submit = late
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "consent.revoked"


async def test_revocation_decided_while_the_announcement_became_final_wins(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        wait = world.a.wait

        async def slow(transaction_id, timeout_ms):
            status = await wait(transaction_id, timeout_ms)
            world.a.wait = wait
            await world.settle(world.ann, Revoke(consent).operation(), at=world.d)
            return status

        world.a.wait = slow
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "consent.revoked"


async def test_key_leaves_only_after_the_announcement_is_final(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.patience_ms = 0
        with pytest.raises(Unavailable):
            await world.a.custodian.release(asked(world, permit))
        world.patience_ms = 20_000
        release = await world.a.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        events = (await world.a.query("records.history", record=sealed.record, first=0, count=64))["events"]
        assert [event["kind"] for event in events].count("access.release") >= 1


async def test_cut_off_custodian_releases_and_serves_nothing(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        await world.b.custodian.fetch(sealed.record, 1)
        world.clock_ahead_ms = 2 * 30_000 + 20_000
        for house in (world.a, world.b):
            assert await refusal(house.custodian.release(asked(world, permit))) == "custody.head-old"
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.head-old"
        assert await refusal(world.a.custodian.may_serve(_stranger_of(world, sealed).key, sealed.root, sealed.record, 1)) == "custody.head-old"


def _holders(world: World, record: bytes) -> list[House]:
    """The hospitals designated to hold a record, in order."""
    by_key = {house.organisation: house for house in world.houses}
    return [by_key[key] for key in designated_holders(record, world.a.organisation, sorted(by_key))]


def _stranger_of(world: World, sealed: Sealed) -> House:
    """The one hospital that is neither custodian nor designated."""
    return next(house for house in world.houses[1:] if house not in _holders(world, sealed.record))


async def test_same_release_request_again_is_answered_without_counting_twice(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        request = asked(world, permit)
        answers = await asyncio.gather(*(world.b.custodian.release(request) for _ in range(3)))
        assert answers[0] == answers[1] == answers[2]
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 1
        await world.b.custodian.release(asked(world, permit))
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 2


async def test_releases_are_counted_and_end(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        for _ in range(16):
            last = asked(world, permit)
            release = await world.a.custodian.release(last)
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "access.releases-used-up"
        assert await world.a.custodian.release(last) == release
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]  # ciphertext is not counted, keys are


async def test_permit_of_an_ended_credential_opens_nothing(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        await world.settle(world.b.identity, RevokeCredential(world.lee.signing.public).operation())
        assert await refusal(world.b.custodian.release(asked(world, permit))) == "credential.revoked"


async def test_emergency_opens_and_its_unjustified_end_closes(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        (event, *_) = (await world.settle(world.kim, declare_emergency(sealed.record, "UNCONSCIOUS"), at=world.c))["events"]
        permit = event["fields"]["permit"]
        assert (await world.c.custodian.fetch(sealed.record, 1))["is_complete"]
        release = await world.c.custodian.release(asked(world, permit, world.kim))
        assert await open_by(world, world.kim, release, permit, sealed) == sealed.plaintext
        await world.settle(world.a.identity, review_emergency(permit, "unjustified"))
        assert await refusal(world.c.custodian.release(asked(world, permit, world.kim))) == "access.permit-ended"
        assert await refusal(world.c.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"


async def test_lost_wrap_is_told_before_anything_is_announced(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.a.wraps.shred_record(sealed.record)
        assert await refusal(world.b.custodian.release(asked(world, permit))) == "custody.key-missing"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 0
        assert await refusal(world.a.custodian.put(sealed.request().encode())) == "custody.version-taken"


async def test_release_by_a_custodian_after_its_restart(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.a.make()
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext


async def test_relay_does_not_go_in_circles_and_strangers_are_turned_away(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)

        async def post(at: House, peer: bytes, data: bytes):
            url = f"http://127.0.0.1:{at.peer_port}/custody/release"
            answer = await world.session.post(url, data=data, headers={"Test-Peer": peer.hex()})
            return answer.status, (await answer.json())["error"]["code"]

        request = asked(world, permit)
        assert await post(world.c, world.b.key, request) == (403, "custody.not-custodian")
        assert await post(world.a, fixed("stranger"), request) == (403, "custody.unknown-peer")
        assert await post(world.a, world.b.key, b"\0" * 20_000) == (400, "malformed")
        assert await post(world.a, world.b.key, b"") == (400, "malformed")


async def test_unreachable_custodian_is_unavailable(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.a.is_reachable = False
        with pytest.raises(Unavailable):
            await world.b.custodian.release(asked(world, permit))
        with pytest.raises(Unavailable):
            await world.b.custodian.fetch(sealed.record, 1)


async def test_custodian_that_lags_behind_waits_for_the_height_that_the_asker_saw(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        world.cluster.drop = lambda source, target, message: world.a.node in (source, target)
        body = TransactionBody(
            "test", world.lee.signing.public, 400, (request_access(sealed.record, "TREAT", "physician"),), secrets.token_bytes(8)
        )
        transaction = Transaction.sign(body, world.lee.signing, world.network)
        await world.b.submit(transaction)
        others = [house.node for house in (world.b, world.c, world.d)]
        world.cluster.run_until(lambda: world.cluster.is_decided(transaction, others))
        (event,) = (await world.b.query("tx.status", id=transaction.id))["events"]
        permit = event["fields"]["permit"]
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "access.permit-unknown"
        releasing = asyncio.create_task(world.b.custodian.release(asked(world, permit)))
        await until(lambda: "POST /custody/release" in world.a.served)
        world.cluster.drop = lambda source, target, message: False

        def step() -> bool:
            world.cluster.tick()
            return releasing.done()

        await until(step)
        assert await open_by(world, world.lee, releasing.result(), permit, sealed) == sealed.plaintext


# ---- ciphertext: who may have it ------------------------------------------------------------------------------------------------


async def test_ciphertext_goes_to_designated_holders_and_permitted_hospitals_only(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = _stranger_of(world, sealed)
        may_serve = world.a.custodian.may_serve
        for holder in _holders(world, sealed.record):
            await may_serve(holder.key, sealed.root, sealed.record, 1)
        assert await refusal(may_serve(stranger.key, sealed.root, sealed.record, 1)) == "custody.not-permitted"
        assert await refusal(may_serve(fixed("nobody"), sealed.root, sealed.record, 1)) == "custody.unknown-peer"
        assert await refusal(may_serve(stranger.key, fixed("root"), sealed.record, 1)) == "custody.other-root"
        assert await refusal(may_serve(stranger.key, sealed.root, fixed("record"), 1)) == "records.unknown"
        assert await refusal(may_serve(stranger.key, sealed.root, sealed.record, 2)) == "records.version-unknown"


async def test_peer_without_a_right_gets_a_typed_refusal_and_no_byte(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = _stranger_of(world, sealed)

        async def get(query: str, method: str = "GET"):
            return await stranger.open_peer(world.a.key, method, f"/blobs/{sealed.root.hex()}{query}")

        query = f"?record={sealed.record.hex()}&version=1&height=0"
        answer = await get(query)
        assert answer.status == 403 and (await answer.json())["error"]["code"] == "custody.not-permitted"
        assert (await get(query, "HEAD")).status == 403
        assert (await get(query, "PUT")).status == 405
        for bad in ("", "?record=zz&version=1", f"?record={sealed.record.hex()}", f"?record={sealed.record.hex()}&version=-1"):
            answer = await get(bad)
            assert answer.status == 400 and (await answer.json())["error"]["code"] == "malformed"


async def test_local_client_reads_a_blob_only_while_a_permit_lives(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()

        async def get(house: House):
            answer = await world.session.get(f"http://127.0.0.1:{house.client_port}/blobs/{sealed.root.hex()}", headers={"Range": "bytes=0-99"})
            return answer.status if answer.status < 400 else (await answer.json())["error"]["code"]

        assert await get(world.a) == "custody.not-permitted"
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"
        consent = await world.grant()
        await world.ask(sealed.record)
        assert await refusal(world.c.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"  # another hospital's permit
        assert await get(world.b) == "custody.not-permitted"
        await world.b.custodian.fetch(sealed.record, 1)
        assert await get(world.b) == 206
        await world.settle(world.ann, Revoke(consent).operation())
        assert await get(world.b) == "custody.not-permitted"
        assert await refusal(world.b.custodian.fetch(fixed("nothing"), 1)) == "records.unknown"
        assert await refusal(world.b.custodian.fetch(sealed.record, 9)) == "records.version-unknown"


async def test_local_client_uploads_and_registers_over_http(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        size = len(sealed.bytes)
        answer = await world.session.put(
            f"http://127.0.0.1:{world.a.client_port}/blobs/{sealed.root.hex()}",
            data=sealed.bytes,
            headers={"Content-Range": f"bytes 0-{size - 1}/{size}"},
        )
        assert answer.status == 201
        servers = world.a.custodian.servers
        assert (await servers["records.put"]({"request": sealed.request().encode()}))["root"] == sealed.root
        await world.grant()
        permit = await world.ask(sealed.record)
        assert (await world.b.custodian.servers["records.fetch"]({"record": sealed.record, "version": 1}))["is_complete"]
        answer = await world.b.custodian.servers["records.release"]({"request": asked(world, permit)})
        assert await open_by(world, world.lee, answer["release"], permit, sealed) == sealed.plaintext


async def test_fetch_tells_how_far_it_is_and_goes_on_in_the_background(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        await world.ask(sealed.record)
        gate, opener = asyncio.Event(), world.b.open_peer

        async def slow(*arguments, **options):
            await gate.wait()
            return await opener(*arguments, **options)

        world.b.custodian.open_peer = slow
        world.b.custodian._limits = replace(world.b.custodian._limits, fetch_patience_ms=1)
        facts = await world.b.custodian.fetch(sealed.record, 1)
        assert facts == {"root": sealed.root, "sealed_bytes": None, "received_bytes": 0, "is_complete": False}
        gate.set()
        await until(lambda: world.b.blobs.has(sealed.root))
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]


# ---- replicas -------------------------------------------------------------------------------------------------------------------


async def replicated(world: World, sealed: Sealed) -> None:
    """Run until both designated holders have confirmed custody."""

    def step() -> bool:
        world.cluster.tick()
        state = world.cluster.nodes[0].ask("records.get", record=sealed.record)
        return {house.organisation for house in _holders(world, sealed.record)} <= set(state["versions"][sealed.version - 1]["holders"])

    await until(step, "the replicas did not come")


async def test_two_designated_hospitals_bring_a_replica_and_confirm_it(with_world):
    async with with_world() as world:
        for house in world.houses:
            await house.custodian.start()
        sealed = Sealed(world)
        await sealed.put()
        await replicated(world, sealed)
        for house in _holders(world, sealed.record):
            assert house.blobs.path(sealed.root).read_bytes() == sealed.bytes
        assert not _stranger_of(world, sealed).blobs.has(sealed.root)
        amended = Sealed(world, version=2, record=sealed.record)
        await amended.put()
        await replicated(world, amended)
        history = await world.a.query("records.history", record=sealed.record, first=0, count=64)
        kinds = [event["kind"] for event in history["events"]]
        assert kinds.count("records.confirm_custody") == 6


async def test_scan_at_the_start_finds_what_was_registered_while_the_hospital_was_down(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        amended = Sealed(world, version=2, record=sealed.record)
        await amended.put()
        for house in _holders(world, sealed.record):
            house.make()
            await house.custodian.start()
        await replicated(world, sealed)
        await replicated(world, amended)


async def test_replica_comes_when_the_custodian_can_be_reached_again(with_world):
    async with with_world() as world:
        world.a.is_reachable = False
        for house in world.houses:
            await house.custodian.start()
        sealed = Sealed(world)
        await sealed.put()
        holders = _holders(world, sealed.record)
        await until(lambda: all(house.custodian.replicas.waiting for house in holders))
        assert not any(house.blobs.has(sealed.root) for house in holders)
        world.a.is_reachable = True
        await replicated(world, sealed)
        await until(lambda: not any(house.custodian.replicas.waiting for house in world.houses))


async def test_replica_comes_from_a_confirmed_holder_when_the_custodian_lost_it_and_the_custodian_repairs_itself(with_world):
    async with with_world() as world:
        first, second = _holders(world, Sealed(world).record)
        sealed = Sealed(world)
        await sealed.put()
        await first.custodian.start()
        await until(lambda: (world.cluster.tick(), first.blobs.has(sealed.root) and not first.custodian.replicas.waiting)[1])
        world.a.blobs.remove(sealed.root)
        await second.custodian.start()
        await replicated(world, sealed)
        assert not world.a.blobs.has(sealed.root)
        await world.a.custodian.start()  # the scan of the custodian finds its own loss
        await until(lambda: world.a.blobs.has(sealed.root))


async def test_liar_cannot_poison_a_replica(with_world, monkeypatch):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        first, second = _holders(world, sealed.record)
        await first.custodian.start()
        await until(lambda: (world.cluster.tick(), first.blobs.has(sealed.root) and not first.custodian.replicas.waiting)[1])
        path = world.a.blobs.path(sealed.root)  # now the custodian itself serves damaged bytes
        path.chmod(0o600)
        path.write_bytes(sealed.bytes[:-1] + bytes([sealed.bytes[-1] ^ 1]))
        await second.custodian.start()
        await replicated(world, sealed)
        assert second.blobs.path(sealed.root).read_bytes() == sealed.bytes


async def test_begun_replica_goes_on_by_range_after_a_restart(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        holder = _holders(world, sealed.record)[0]

        async def beginning():
            yield sealed.bytes[:20_000]

        await holder.blobs.write_range(sealed.root, 0, beginning())
        now_seconds = world.wall() / 1000  # of the world; the machine's clock would make it an upload given up long ago
        os.utime(holder.folder / "uploads" / sealed.root.hex(), (now_seconds, now_seconds))
        holder.make()
        ranges, opener = [], holder.open_peer

        async def watched(peer, method, path, *, data=None, headers=None):
            ranges.append(headers["Range"])
            return await opener(peer, method, path, data=data, headers=headers)

        holder.custodian.open_peer = watched
        await holder.custodian.start()
        await until(lambda: (world.cluster.tick(), holder.blobs.has(sealed.root))[1])
        assert ranges == ["bytes=20000-"]


async def test_beginning_from_a_liar_is_thrown_away_and_fetched_anew(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        holder = _holders(world, sealed.record)[0]

        async def wrong():
            yield sealed.bytes[:10_000] + bytes(5_000)

        await holder.blobs.write_range(sealed.root, 0, wrong())
        now_seconds = world.wall() / 1000
        os.utime(holder.folder / "uploads" / sealed.root.hex(), (now_seconds, now_seconds))
        await holder.custodian.start()
        await until(lambda: (world.cluster.tick(), holder.blobs.has(sealed.root))[1])
        assert holder.blobs.path(sealed.root).read_bytes() == sealed.bytes


@pytest.mark.parametrize("answer", ["too long", "other range", "error", "rubbish", "silence"])
async def test_what_a_hostile_hospital_sends_is_survived(with_world, answer):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        await world.ask(sealed.record)

        async def hostile(request):
            size = 10**12
            match answer:
                case "too long":
                    return web.Response(status=206, body=b"x" * 100, headers={"Content-Range": f"bytes 0-{size - 1}/{size}"})
                case "other range":
                    return web.Response(status=206, body=sealed.bytes[5:], headers={"Content-Range": "bytes 5-9/10"})
                case "error":
                    return web.Response(status=500, text="x" * 100_000)
                case "rubbish":
                    end = len(sealed.bytes)
                    return web.Response(status=206, body=b"\xff" * end, headers={"Content-Range": f"bytes 0-{end - 1}/{end}"})
            request.transport.abort()
            return web.Response()

        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", hostile)
        runner = web.AppRunner(application, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        honest, world.a.peer_port = world.a.peer_port, runner.addresses[0][1]

        async def careful(peer, method, path, *, data=None, headers=None):
            try:
                return await world.b.open_peer(peer, method, path, data=data, headers=headers)
            except aiohttp.ClientError:
                raise Unavailable("the hospital did not answer", 1_000) from None

        world.b.custodian.open_peer = careful
        with pytest.raises((Unavailable, Malformed)):
            await world.b.custodian.fetch(sealed.record, 1)
        assert not world.b.blobs.has(sealed.root)
        with pytest.raises((Unavailable, Malformed)):
            await world.b.custodian.release(asked(world, (await world.b.query("records.history", record=sealed.record, first=2, count=1))
                                                  ["events"][0]["fields"]["permit"]))
        world.a.peer_port = honest
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]
        await runner.cleanup()


async def test_full_vault_waits_and_tries_again(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        holder = _holders(world, sealed.record)[0]
        holder.blobs._limits = BlobLimits(bytes_max=1_000, disk_free_bytes_min=0)
        await holder.custodian.start()
        await until(lambda: holder.custodian.replicas.waiting > 0)
        assert not holder.blobs.has(sealed.root)
        holder.blobs._limits = BlobLimits(disk_free_bytes_min=0)
        await until(lambda: (world.cluster.tick(), holder.blobs.has(sealed.root))[1])


async def test_copy_for_a_reader_is_removed_after_a_day_and_what_must_be_held_is_kept(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = _stranger_of(world, sealed)
        await sealed.upload(stranger.blobs)
        abandoned = Sealed(world, "abandoned")
        await abandoned.upload(world.a.blobs)
        old_seconds = (world.wall() - ORPHAN_MS) / 1000 - 60
        for house, blob in ((world.a, sealed), (stranger, sealed), (world.a, abandoned)):
            os.utime(house.blobs.path(blob.root), (old_seconds, old_seconds))
        fresh = Sealed(world, "fresh upload")
        await fresh.upload(world.a.blobs)
        os.utime(world.a.blobs.path(fresh.root), (world.wall() / 1000, world.wall() / 1000))
        world.clock_ahead_ms = 100_000  # a head that is too old decides nothing
        for house in (world.a, stranger):
            await house.custodian.replicas._scan()
        assert stranger.blobs.has(sealed.root) and world.a.blobs.has(abandoned.root)
        world.clock_ahead_ms = 0
        for house in (world.a, stranger):
            await house.custodian.replicas._scan()
        assert not stranger.blobs.has(sealed.root) and not world.a.blobs.has(abandoned.root)
        assert world.a.blobs.has(sealed.root) and world.a.blobs.has(fresh.root)


async def test_key_that_is_no_hospitals_makes_no_custodian(with_world, tmp_path):
    async with with_world() as world:
        world.a.identity, own = identity("hospital", "nobody"), world.a.identity
        with pytest.raises(InvariantBroken):
            world.a.make()
        world.a.identity = own
        world.a.make()


async def test_bug_in_background_work_is_handed_to_whoever_stops_the_node(with_world):
    async with with_world() as world:
        async def broken(method, **params):
            raise ZeroDivisionError

        world.d.query = broken
        await world.d.custodian.start()
        await until(lambda: world.d.failures)
        assert "ZeroDivisionError" in world.d.failures[0].message
        world.d.failures.clear()
