"""A node's folder: what is in it opens, and each thing that is wrong with it has its own sentence."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pytest

from medchain.chain.genesis import VALIDATOR, Genesis
from medchain.crypto.keyfile import Identity
from medchain.errors import Malformed, Rejected
from medchain.node import home as homes
from medchain.node.home import NodeHome, open_home
from medchain.store.leveldb import LevelDB


def refused(home, passphrase, **options) -> Rejected:
    with pytest.raises(Rejected) as caught:
        open_home(home, passphrase, **options)
    return caught.value


def test_made_folder_opens_with_its_own_keys(home, passphrase):
    opened = open_home(home, passphrase)
    try:
        assert opened.hospital.name == "a"
        assert opened.hospital.consensus_key == opened.keys.consensus.signing.public
        assert opened.hospital.organisation_key == opened.keys.organisation.signing.public
        assert opened.passphrase == passphrase()
        assert "secret" not in repr(opened.keys)
    finally:
        opened.store.close()


def test_folder_holds_no_passphrase_and_every_secret_file_is_private(home, network):
    secret = network.passphrase_file.read_bytes().strip()
    for path in home.path.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path
    for path in (home.consensus_key_file, home.organisation_key_file, home.tls_key_file, network.passphrase_file):
        assert path.stat().st_mode & 0o077 == 0, path
    assert b"ENCRYPTED" in home.tls_key_file.read_bytes()


def test_store_in_use_is_refused_before_the_passphrase_is_asked_for(home, passphrase):
    first = open_home(home, passphrase)

    def never() -> str:
        pytest.fail("the passphrase was asked for")

    try:
        assert refused(home, never).code == "store.locked"
    finally:
        first.store.close()


def test_refused_start_leaves_the_store_unlocked(home, passphrase):
    assert refused(home, lambda: "wrong").code == "keyfile.wrong-passphrase"
    open_home(home, passphrase).store.close()


def test_lost_store_is_refused_unless_an_empty_one_is_allowed(home, passphrase):
    shutil.rmtree(home.data_folder)
    refusal = refused(home, passphrase)
    assert refusal.code == "store.missing"
    assert "--empty-store" in refusal.message
    opened = open_home(home, passphrase, may_be_empty=True)
    assert list(opened.store.iterate(b"", b"\xff")) == []
    opened.store.close()


def test_damaged_store_is_refused(home, passphrase):
    (home.data_folder / "CURRENT").unlink()
    assert refused(home, passphrase).code == "store.damaged"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"chain_id": "x"}', b"[" * 100_000])
def test_damaged_genesis_document_is_malformed_and_named(home, passphrase, text):
    home.genesis_file.write_bytes(text)
    with pytest.raises(Malformed, match=r"genesis\.json: "):
        open_home(home, passphrase)


def test_missing_genesis_document_is_refused(home, passphrase):
    home.genesis_file.unlink()
    assert refused(home, passphrase).code == "home.incomplete"


def test_genesis_document_of_another_network_is_refused(home, passphrase, tmp_path):
    document = json.loads(home.genesis_file.read_text())
    for hospital in document["hospitals"]:
        hospital["consensus_key"] = hospital["consensus_key"][::-1]
    document["hospitals"].sort(key=lambda hospital: hospital["consensus_key"])
    home.genesis_file.write_text(json.dumps(document))
    refusal = refused(home, passphrase)
    assert refusal.code == "home.not-a-member"


@pytest.mark.parametrize("name", ["org.key", "tls.cert.pem"])
def test_file_of_another_hospital_is_refused(home, network, passphrase, name):
    shutil.copy(network.seat("b").home.path / name, home.path / name)
    refusal = refused(home, passphrase)
    assert refusal.code == "home.other-keys"
    assert name in refusal.message


def test_other_hospitals_consensus_key_does_not_open_with_this_ones_certificate(home, network, passphrase):
    shutil.copy(network.seat("b").home.consensus_key_file, home.consensus_key_file)
    assert refused(home, passphrase).code == "home.other-keys"


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff" * 100])
def test_damaged_certificate_is_malformed_and_named(home, passphrase, content):
    home.tls_certificate_file.write_bytes(content)
    with pytest.raises(Malformed, match=r"tls\.cert\.pem"):
        open_home(home, passphrase)


def test_missing_certificate_is_refused(home, passphrase):
    home.tls_certificate_file.unlink()
    assert refused(home, passphrase).code == "home.incomplete"


def test_damaged_key_file_is_malformed(home, passphrase):
    home.consensus_key_file.write_text("{}")
    home.consensus_key_file.chmod(0o600)
    with pytest.raises(Malformed):
        open_home(home, passphrase)


def test_key_file_that_others_may_read_is_refused(home, passphrase):
    home.consensus_key_file.chmod(0o644)
    assert refused(home, passphrase).code == "keyfile.permissions"


def test_store_is_never_founded_twice(home):
    genesis = homes.load_genesis(home.genesis_file)
    with pytest.raises(Rejected) as caught:
        homes.found_store(home, genesis)
    assert caught.value.code == "home.exists"


def test_folder_that_holds_a_node_is_not_made_again(home):
    with pytest.raises(Rejected) as caught:
        homes.make_folder(home)
    assert caught.value.code == "home.exists"


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Rejected) as caught:
        homes.make_folder(NodeHome(tmp_path / "file" / "below"))
    assert caught.value.code == "home.unusable"


def test_unprotected_keys_ask_for_no_passphrase_and_a_described_hospital_is_a_row_of_the_genesis_document(tmp_path, network):
    """A hospital founded by hand: keys first, then the genesis document, then the store."""
    home = NodeHome(tmp_path / "e")
    homes.make_folder(home)
    homes.save_config(home, {})
    homes.save_keys(home, homes.make_identities(), homes.make_tls("e", ["e.example"], None, datetime.now(UTC)), None)
    officer = Identity.generate("officer").signing.public
    row = homes.own_row(home, "e", VALIDATOR, officer, ["e.example:7200"])
    document = json.loads(network.genesis_file.read_text())
    document["hospitals"] = sorted([*document["hospitals"], homes.describe(row)], key=lambda hospital: hospital["consensus_key"])
    genesis = Genesis.from_json(json.dumps(document))
    assert row in genesis.hospitals
    homes.found_store(home, genesis)
    opened = open_home(home, lambda: pytest.fail("the passphrase was asked for"))
    assert opened.passphrase is None
    opened.store.close()


def test_written_file_is_whole_or_absent(tmp_path):
    with pytest.raises(Rejected) as caught:
        homes.write_file(tmp_path / "no" / "file", b"x")
    assert caught.value.code == "home.unusable"
    homes.write_file(tmp_path / "file", b"one", mode=0o600)
    homes.write_file(tmp_path / "file", b"two", mode=0o600)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"two"


def test_founded_store_is_intact_at_height_zero(home):
    store = LevelDB(home.data_folder, create=False)
    assert next(iter(store.iterate(b"b/", b"b0")), None) is not None
    store.close()
