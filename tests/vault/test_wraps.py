"""Keys at rest: durable, found by what the chain anchors, and nothing of them readable without the organisation's opening key."""

from __future__ import annotations

import stat

import pytest

from medchain.chain.domain import Domain
from medchain.crypto.sealing import SUITE_HYBRID, SUITE_X25519, OpeningKey
from medchain.errors import InvariantBroken, Malformed
from medchain.vault import files
from medchain.vault.wraps import EpochKey, WrapStore

NETWORK = Domain(b"\x01" * 32)
OPENING = OpeningKey.from_private_bytes(SUITE_HYBRID, b"\x02" * 32)
PSEUDONYM, RECORD, DATA_KEY = b"\x03" * 32, b"\x04" * 32, b"\x05" * 32


@pytest.fixture
def wraps(folder):
    return WrapStore(folder, OPENING, NETWORK)


def everything(folder) -> bytes:
    return b"".join(str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_epoch_key_is_there_after_a_restart(wraps, folder):
    made = wraps.make_epoch_key(PSEUDONYM, "general", 1)
    again = WrapStore(folder, OPENING, NETWORK)
    assert again.epoch_key(PSEUDONYM, "general", 1) == made
    assert again.make_epoch_key(PSEUDONYM, "general", 1) == made
    assert again.epoch_key(PSEUDONYM, "general", 2) is None
    assert again.epoch_key(PSEUDONYM, "psy", 1) is None


def test_epoch_keys_are_fresh(wraps):
    keys = {wraps.make_epoch_key(PSEUDONYM, category, number).key for category in ("general", "psy") for number in (1, 2)}
    assert len(keys) == 4


def test_nothing_on_disk_is_a_key_and_no_name_tells_a_patient(wraps, folder):
    epoch = wraps.make_epoch_key(PSEUDONYM, "general", 1)
    wraps.put_wrap(epoch, RECORD, 1, DATA_KEY)
    found = everything(folder)
    for secret in (epoch.key, DATA_KEY, OPENING.private_bytes()):
        for form in (secret, secret.hex().encode()):
            assert form not in found
    assert not any(PSEUDONYM.hex() in str(path) for path in folder.rglob("*"))


def test_files_and_folders_are_their_owners_only(wraps, folder):
    wraps.put_wrap(wraps.make_epoch_key(PSEUDONYM, "general", 1), RECORD, 1, DATA_KEY)
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_stolen_folder_opens_nothing_without_the_opening_key(wraps, folder):
    wraps.make_epoch_key(PSEUDONYM, "general", 1)
    thief = WrapStore(folder, OpeningKey.generate(SUITE_HYBRID), NETWORK)
    with pytest.raises(Malformed):
        thief.epoch_key(PSEUDONYM, "general", 1)
    with pytest.raises(Malformed):
        thief.make_epoch_key(PSEUDONYM, "general", 1)


def test_folder_of_another_network_does_not_open(wraps, folder):
    wraps.make_epoch_key(PSEUDONYM, "general", 1)
    with pytest.raises(Malformed):
        WrapStore(folder, OPENING, Domain(b"\x09" * 32)).epoch_key(PSEUDONYM, "general", 1)


def test_epoch_file_under_another_epochs_name_is_refused(wraps, folder):
    wraps.make_epoch_key(PSEUDONYM, "general", 1)
    (path,) = (folder / "epochs").iterdir()
    path.rename(wraps._epoch_path(PSEUDONYM, "psy", 1))
    with pytest.raises(Malformed):
        wraps.epoch_key(PSEUDONYM, "psy", 1)


@pytest.mark.parametrize("suite", [SUITE_HYBRID, SUITE_X25519])
def test_damaged_epoch_file_is_malformed_and_nothing_else(folder, suite):
    wraps = WrapStore(folder, OpeningKey.from_private_bytes(suite, b"\x07" * 32), NETWORK)
    wraps.make_epoch_key(PSEUDONYM, "general", 1)
    (path,) = (folder / "epochs").iterdir()
    content = path.read_bytes()
    for damaged in [content[:end] for end in range(0, len(content), 40)] + [
        content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in range(0, len(content), 40)
    ]:
        path.write_bytes(damaged)
        with pytest.raises(Malformed):
            wraps.epoch_key(PSEUDONYM, "general", 1)


def test_check_value_recognises_its_key_and_nothing_else(wraps):
    epoch = wraps.make_epoch_key(PSEUDONYM, "general", 1)
    check_value = epoch.check_value(NETWORK)
    assert epoch.is_of(NETWORK, check_value) and len(check_value) == 32 and check_value != epoch.key
    others = [
        EpochKey(PSEUDONYM, "general", 2, epoch.key),
        EpochKey(PSEUDONYM, "psy", 1, epoch.key),
        EpochKey(RECORD, "general", 1, epoch.key),
        EpochKey(PSEUDONYM, "general", 1, DATA_KEY),
    ]
    assert not any(other.is_of(NETWORK, check_value) for other in others)
    assert not epoch.is_of(Domain(b"\x09" * 32), check_value)


def test_text_of_an_epoch_key_shows_no_key(wraps):
    epoch = wraps.make_epoch_key(PSEUDONYM, "general", 1)
    assert epoch.key.hex() not in repr(epoch) and str(epoch.key) not in repr(epoch)


def test_wrap_is_found_by_its_digest_and_opens_under_its_epoch(wraps, folder):
    epoch = wraps.make_epoch_key(PSEUDONYM, "general", 1)
    digest = wraps.put_wrap(epoch, RECORD, 1, DATA_KEY)
    assert wraps.put_wrap(epoch, RECORD, 1, DATA_KEY) == digest
    again = WrapStore(folder, OPENING, NETWORK)
    wrap = again.wrap(RECORD, 1, digest)
    assert wrap is not None and wrap.digest(NETWORK) == digest
    assert again.data_key(epoch, wrap) == DATA_KEY
    assert again.wrap(RECORD, 2, digest) is None and again.wrap(RECORD, 1, b"\x09" * 32) is None


def test_attempt_that_never_reached_the_chain_stands_in_nobodys_way(wraps):
    first, second = (wraps.make_epoch_key(PSEUDONYM, "general", number) for number in (1, 2))
    digests = [wraps.put_wrap(epoch, RECORD, 1, DATA_KEY) for epoch in (first, second)]
    assert digests[0] != digests[1]
    for epoch, digest in zip((first, second), digests, strict=True):
        wrap = wraps.wrap(RECORD, 1, digest)
        assert wrap is not None and wraps.data_key(epoch, wrap) == DATA_KEY


def test_wrap_does_not_open_under_another_epochs_key(wraps):
    first, second = (wraps.make_epoch_key(PSEUDONYM, "general", number) for number in (1, 2))
    wrap = wraps.wrap(RECORD, 1, wraps.put_wrap(first, RECORD, 1, DATA_KEY))
    with pytest.raises(InvariantBroken):
        wraps.data_key(second, wrap)
    with pytest.raises(Malformed):
        wraps.data_key(EpochKey(PSEUDONYM, "general", 1, second.key), wrap)


def test_damaged_wrap_is_malformed(wraps, folder):
    digest = wraps.put_wrap(wraps.make_epoch_key(PSEUDONYM, "general", 1), RECORD, 1, DATA_KEY)
    (path,) = (folder / "keys").rglob("1-*")
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(Malformed):
            wraps.wrap(RECORD, 1, digest)
        path.write_bytes(content[:place])
        with pytest.raises(Malformed):
            wraps.wrap(RECORD, 1, digest)


def test_shredded_keys_are_gone(wraps, folder):
    epoch = wraps.make_epoch_key(PSEUDONYM, "general", 1)
    digests = [wraps.put_wrap(epoch, RECORD, version, DATA_KEY) for version in (1, 2)]
    kept = wraps.put_wrap(epoch, b"\x08" * 32, 1, DATA_KEY)
    wrapped = wraps.wrap(RECORD, 1, digests[0]).wrapped
    assert wraps.shred_record(RECORD) == 2 and wraps.shred_record(b"\x0a" * 32) == 0
    assert all(wraps.wrap(RECORD, version, digest) is None for version, digest in zip((1, 2), digests, strict=True))
    assert wraps.wrap(b"\x08" * 32, 1, kept) is not None
    wraps.shred_epoch_key(PSEUDONYM, "general", 1)
    wraps.shred_epoch_key(PSEUDONYM, "general", 1)
    assert wraps.epoch_key(PSEUDONYM, "general", 1) is None
    assert wraps.make_epoch_key(PSEUDONYM, "general", 1) != epoch
    assert wrapped in everything(folder)  # the same data key under the same epoch key, for the other record


def test_shredding_overwrites_before_it_removes(folder, monkeypatch):
    folder.mkdir()
    path = folder / "secret"
    path.write_bytes(b"s" * 100)
    kept = folder / "hard link"
    kept.hardlink_to(path)
    files.overwrite_and_remove(path)
    assert not path.exists() and kept.read_bytes() == bytes(100)


def test_file_half_written_at_a_cut_is_removed_at_the_next_start(wraps, folder):
    wraps.put_wrap(wraps.make_epoch_key(PSEUDONYM, "general", 1), RECORD, 1, DATA_KEY)
    assert list((folder / "new").iterdir()) == []
    leftover = folder / "new" / "0011"
    leftover.write_bytes(b"half")
    WrapStore(folder, OPENING, NETWORK)
    assert not leftover.exists()
