"""No plaintext: nothing of a real bundle, and no key, in any file, body or frame of any hospital; and the disks alone open nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medchain.client import records
from medchain.crypto.keyfile import Identity, load_identity
from medchain.errors import MedchainError, Rejected
from medchain.vault.wraps import WrapStore

pytestmark = pytest.mark.cluster

STRING_BYTES_MIN = 12
PIECE_BYTES = 64
"""Of longer strings (notes, attachments) begin, middle and end are searched: a part of them would be as bad as the whole."""
NAME_CHARACTERS_MIN = 4
"""Shorter names (`Bob`) stand in any binary file by chance."""
CODES = ("fhir-bundle",)
"""What the chain says on purpose."""
TRAFFIC = "traffic"


def strings_of(value: object) -> Iterator[str]:
    """Every string of a JSON document, names of members left out: they are FHIR's, not the patient's."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)


def names_of(bundle: dict) -> Iterator[str]:
    """Family and given names of everybody in the bundle, however short."""
    for entry in bundle["entry"]:
        for name in entry["resource"].get("name", []) if isinstance(entry["resource"].get("name"), list) else []:
            yield from strings_of({key: name.get(key) for key in ("family", "given", "text")})


def needles_of(text: str) -> dict[bytes, str]:
    """What must be found nowhere: names and strings of 12 bytes and more, as they are, as hexadecimal text and in Base64."""
    bundle = json.loads(text)
    found = {string for string in strings_of(bundle) if len(string.encode()) >= STRING_BYTES_MIN}
    found |= {name for name in names_of(bundle) if len(name) >= NAME_CHARACTERS_MIN}
    needles: dict[bytes, str] = {}
    for string in sorted(found - set(CODES)):
        data = string.encode()
        for start in {0, len(data) // 2, max(0, len(data) - PIECE_BYTES)} if len(data) > PIECE_BYTES else {0}:
            needles[data[start : start + PIECE_BYTES]] = string[:40]
    names = {name for name in names_of(bundle) if len(name) >= NAME_CHARACTERS_MIN}
    for name in sorted(names):
        needles[name.encode().hex().encode()] = f"{name} in hexadecimal"
        if len(name.encode()) >= 8:
            needles[base64.b64encode(name.encode())[:-4]] = f"{name} in Base64"
    return needles


def haystacks(folders: list[Path]) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, path.read_bytes()


def hits(folders: list[Path], needles: dict[bytes, str]) -> list[str]:
    return [f"{path}: {what}" for path, data in haystacks(folders) for needle, what in needles.items() if needle in data]


@pytest.fixture
def data_keys(monkeypatch) -> list[bytes]:
    """The data keys made by commands of this process, which is the author's."""
    made: list[bytes] = []
    generate = records.generate_data_key

    def remember() -> bytes:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr(records, "generate_data_key", remember)
    return made


@pytest.fixture
def recorded(make_sharing, tmp_path):
    """A network that records its traffic."""

    def record_traffic(testnet) -> None:
        for seat in testnet.plan.seats:
            with seat.home.config_file.open("a", encoding="utf-8") as file:
                file.write(f'\n[debug]\nrecord_traffic_directory = "{tmp_path / TRAFFIC / seat.name}"\n')

    return make_sharing(record_traffic)


def epoch_keys(sharing, organisation: Identity) -> list[bytes]:
    """The epoch keys of hospital a, opened with its unlocked key."""
    wraps = WrapStore(sharing.home("a") / "vault" / "wraps", organisation.opening, sharing.cluster.genesis.domain())
    found = [wraps.epoch_key(bytes.fromhex(sharing.patient), "general", number) for number in range(1, 4)]
    return [epoch.key for epoch in found if epoch is not None]


def test_no_plaintext_and_no_key_in_any_file_body_or_frame(recorded, shared_data, sample_bundle, data_keys, tmp_path):
    sharing = recorded
    (bundle,) = (shared_data / "fhir-synthea").glob("Cecelia952_*.json")
    originals = [bundle, sample_bundle]
    for number, original in enumerate(originals):
        record = sharing.put(original)
        consent = sharing.grant(sharing.lee_id)
        sharing.request(record)
        sharing.get(record, tmp_path / f"read-{number}")
        sharing.revoke(consent)
        sharing.request(record, expect=1)
        sharing.emergency(record)
        sharing.get(record, tmp_path / f"emergency-{number}", key=sharing.kim, at="c")
        sharing.medchain("access", "trail", sharing.patient, "--as", sharing.patient_key, "--at", sharing.home("a"))
        for copy in ("read", "emergency"):
            assert (tmp_path / f"{copy}-{number}").read_bytes() == original.read_bytes()
        sharing.cluster.wait("replicas are confirmed", lambda record=record: _holders(sharing, record) == 3)
    sharing.cluster.testnet.stop()

    folders = [sharing.home(name) for name in sharing.cluster.names] + [tmp_path / TRAFFIC]
    needles: dict[bytes, str] = {}
    for original in originals:
        needles |= needles_of(original.read_text(encoding="utf-8"))
    organisation = sharing.cluster.organisation("a")
    epochs = epoch_keys(sharing, organisation)
    assert len(data_keys) == 2
    assert len(epochs) >= 2, "a revocation lies between the two records, so each has an epoch of its own"
    secrets = {"data key": data_keys, "epoch key": epochs, "seed of the hospital": [organisation.signing.seed_bytes()]}
    secrets["opening key of the hospital"] = [organisation.opening.private_bytes()]
    secrets["passphrase"] = [sharing.cluster.passphrase.encode()]
    for what, keys in secrets.items():
        for key in keys:
            needles |= {key: what, key.hex().encode(): f"{what} in hexadecimal", base64.b64encode(key)[:40]: f"{what} in Base64"}
    assert len(needles) > 900
    assert hits(folders, needles) == []
    _check_that_the_search_sees(sharing, folders, originals)


def _holders(sharing, record: str) -> int:
    return len(sharing.medchain("record", "show", record, "--at", sharing.home("a"))["versions"][-1]["holders"])


def _check_that_the_search_sees(sharing, folders: list[Path], originals: list[Path]) -> None:
    """The search is worth something: what must be there, is found; and in the clear, the needles are."""
    pseudonym = sharing.patient
    found = hits(folders, {bytes.fromhex(pseudonym): "pseudonym", pseudonym.encode(): "pseudonym in hexadecimal"})
    for name in sharing.cluster.names:
        assert any(f"/{name}/data/" in hit for hit in found)
        assert any(f"/{TRAFFIC}/{name}/peer-frames.bin" in hit for hit in found)
    assert any("rpc-bodies.bin: pseudonym in hexadecimal" in hit for hit in found)
    blobs = [path for path, _ in haystacks(folders) if "/vault/blobs/" in str(path)]
    assert len(blobs) >= 2 * 3
    for original in originals:
        data = original.read_bytes()
        plain = [needle for needle in needles_of(data.decode()) if needle in data]
        assert len(plain) > 50


def test_all_disks_without_an_unlocked_key_open_nothing(make_sharing, sample_bundle, data_keys):
    """With the folders of all hospitals: no key file opens without the passphrase, no wrap with another hospital's key, no blob with
    anything that lies on those disks."""
    sharing = make_sharing()
    record = sharing.put(sample_bundle)
    sharing.cluster.wait("replicas are confirmed", lambda: _holders(sharing, record) == 3)
    sharing.cluster.testnet.stop()
    (data_key,) = data_keys
    for name in sharing.cluster.names:
        for key_file in (sharing.home(name) / "org.key", sharing.home(name) / "consensus.key"):
            with pytest.raises(Rejected) as refused:
                load_identity(key_file, None)
            assert refused.value.code == "keyfile.locked"
            with pytest.raises(Rejected) as refused:
                load_identity(key_file, "a guess")
            assert refused.value.code == "keyfile.wrong-passphrase"
        assert b"ENCRYPTED" in (sharing.home(name) / "tls.key.pem").read_bytes()
    assert epoch_keys(sharing, sharing.cluster.organisation("a")), "with the unlocked key it opens, so the refusals below say something"
    for name in ("b", "c", "d"):
        with pytest.raises(MedchainError):
            epoch_keys(sharing, sharing.cluster.organisation(name))
    folders = [sharing.home(name) for name in sharing.cluster.names]
    assert hits(folders, {data_key: "data key", data_key.hex().encode(): "data key in hexadecimal"}) == []
