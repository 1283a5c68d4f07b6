"""Key files: whole or not there, never overwritten, closed to others, and everything in them vouched for."""

from __future__ import annotations

import json
import os
import stat
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto import keyfile
from medchain.crypto.keyfile import REFUSALS, ROLES, Identity, load_identity, load_public, save_identity
from medchain.crypto.sealing import SUITE_HYBRID, SUITE_X25519, OpeningKey, seal
from medchain.crypto.signing import SigningKey, is_signature_valid
from medchain.errors import Malformed, Rejected

HOSPITAL = Identity("hospital", SigningKey(bytes(range(32))), OpeningKey.from_private_bytes(SUITE_X25519, bytes(range(32, 64))))
OTHER = Identity.generate("hospital", SUITE_X25519)
PASSPHRASE = "correct horse battery staple"

Document = dict[str, Any]


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """The content of a protected key file of HOSPITAL."""
    path = tmp_path_factory.mktemp("keys") / "protected.json"
    save_identity(path, HOSPITAL, PASSPHRASE)
    document: Document = json.loads(path.read_text())
    return document


@pytest.fixture
def plain(tmp_path: Path) -> Document:
    """The content of an unprotected key file of HOSPITAL."""
    save_identity(tmp_path / "plain.json", HOSPITAL, None)
    document: Document = json.loads((tmp_path / "plain.json").read_text())
    return document


def written(folder: Path, content: Document | str | bytes) -> Path:
    """Put a file with this content and right permissions into the folder."""
    path = folder / "key.json"
    path.unlink(missing_ok=True)
    match content:
        case dict():
            path.write_text(json.dumps(content))
        case str():
            path.write_text(content)
        case _:
            path.write_bytes(content)
    path.chmod(0o600)
    return path


def refusal_of(act: Callable[[], object]) -> str:
    with pytest.raises(Rejected) as caught:
        act()
    assert caught.value.code in REFUSALS
    return caught.value.code


def is_same(one: Identity, other: Identity) -> bool:
    return (one.role, one.signing.seed_bytes(), one.opening.suite, one.opening.private_bytes()) == (
        other.role,
        other.signing.seed_bytes(),
        other.opening.suite,
        other.opening.private_bytes(),
    )


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE, "pässwört 密码"])
@pytest.mark.parametrize("suite", [SUITE_HYBRID, SUITE_X25519])
def test_an_identity_comes_back_and_its_keys_work(tmp_path: Path, passphrase: str | None, suite: int) -> None:
    identity = Identity.generate("clinician", suite)
    path = tmp_path / "clinician.json"
    save_identity(path, identity, passphrase)
    loaded = load_identity(path, passphrase)
    assert is_same(loaded, identity)
    assert is_signature_valid(identity.signing.public, b"m", loaded.signing.sign(b"m"))
    sealed = seal(suite, load_public(path).opening_public, b"secret", info=b"test")
    assert loaded.opening.open(sealed, info=b"test") == b"secret"


@pytest.mark.parametrize("role", ROLES)
def test_every_role_can_be_saved(tmp_path: Path, role: str) -> None:
    identity = Identity.generate(role, SUITE_X25519)
    save_identity(tmp_path / "key.json", identity, None)
    assert load_identity(tmp_path / "key.json", None).role == role
    assert load_public(tmp_path / "key.json") == identity.public_identity()


def test_an_unknown_role_or_suite_is_malformed() -> None:
    with pytest.raises(Malformed, match="a role is one of"):
        Identity.generate("king")
    with pytest.raises(Malformed, match="suite"):
        Identity.generate("patient", 9)


def test_the_file_says_what_it_is_and_hides_the_secret_under_the_passphrase(protected: Document) -> None:
    assert protected["medchain_key"] == 1
    assert protected["role"] == "hospital"
    assert protected["public"] == HOSPITAL.signing.public.hex()
    assert protected["opening_suite"] == SUITE_X25519
    assert protected["opening_public"] == HOSPITAL.opening.public.hex()
    assert {name: protected["secret"][name] for name in ("protection", "n", "r", "p")} == {
        "protection": "scrypt-aes-256-gcm",
        "n": 32768,
        "r": 8,
        "p": 1,
    }
    text = json.dumps(protected)
    assert HOSPITAL.signing.seed_bytes().hex() not in text
    assert HOSPITAL.opening.private_bytes().hex() not in text


def test_two_files_of_one_identity_have_other_salts_and_nonces(tmp_path: Path, protected: Document) -> None:
    save_identity(tmp_path / "again.json", HOSPITAL, PASSPHRASE)
    again = json.loads((tmp_path / "again.json").read_text())
    for name in ("salt", "nonce", "data"):
        assert again["secret"][name] != protected["secret"][name]


def test_a_passphrase_typed_in_another_unicode_form_opens_the_file(tmp_path: Path) -> None:
    save_identity(tmp_path / "key.json", HOSPITAL, unicodedata.normalize("NFD", "Zürich"))
    assert is_same(load_identity(tmp_path / "key.json", unicodedata.normalize("NFC", "Zürich")), HOSPITAL)


def test_a_passphrase_for_an_unprotected_file_is_not_used(tmp_path: Path, plain: Document) -> None:
    assert is_same(load_identity(written(tmp_path, plain), "whatever"), HOSPITAL)


def test_no_text_form_of_an_identity_shows_a_secret() -> None:
    shown = f"{HOSPITAL!r} {HOSPITAL!s} {HOSPITAL.public_identity()!r}"
    for secret in (HOSPITAL.signing.seed_bytes(), HOSPITAL.opening.private_bytes()):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_a_saved_file_is_closed_to_others_whatever_the_umask_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    previous = os.umask(0o377)
    try:
        save_identity(path, HOSPITAL, None)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["key.json"]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    save_identity(path, HOSPITAL, None)
    before = path.read_bytes()
    assert refusal_of(lambda: save_identity(path, OTHER, None)) == "keyfile.exists"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["key.json"]


def test_a_link_or_folder_in_the_way_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "dangling.json").symlink_to(tmp_path / "elsewhere.json")
    (tmp_path / "folder").mkdir()
    for name in ("dangling.json", "folder"):
        assert refusal_of(lambda name=name: save_identity(tmp_path / name, HOSPITAL, None)) == "keyfile.exists"  # type: ignore[misc]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling.json", "folder"]


def test_of_many_writers_one_wins_and_its_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    identities = [Identity.generate("client", SUITE_X25519) for _ in range(8)]
    saved: list[Identity] = []
    codes: list[str] = []
    barrier = threading.Barrier(len(identities))

    def write(identity: Identity) -> None:
        barrier.wait(20)
        try:
            save_identity(path, identity, None)
        except Rejected as refusal:
            codes.append(refusal.code)
        else:
            saved.append(identity)

    threads = [threading.Thread(target=write, args=(identity,)) for identity in identities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(saved) == 1
    assert codes == ["keyfile.exists"] * 7
    assert is_same(load_identity(path, None), saved[0])


def test_saving_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "key.json", tmp_path / "file" / "key.json", tmp_path / ("n" * 300)):
        assert refusal_of(lambda path=path: save_identity(path, HOSPITAL, None)) == "keyfile.unwritable"  # type: ignore[misc]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_empty_passphrase_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    assert refusal_of(lambda: save_identity(tmp_path / "key.json", HOSPITAL, "")) == "keyfile.empty-passphrase"
    assert list(tmp_path.iterdir()) == []


def test_a_protected_file_without_a_passphrase_is_locked(tmp_path: Path, protected: Document) -> None:
    assert refusal_of(lambda: load_identity(written(tmp_path, protected), None)) == "keyfile.locked"


@pytest.mark.parametrize("passphrase", ["", "hunter2", PASSPHRASE + " ", PASSPHRASE.upper()])
def test_a_wrong_passphrase_is_refused_and_not_repeated(tmp_path: Path, protected: Document, passphrase: str) -> None:
    with pytest.raises(Rejected) as caught:
        load_identity(written(tmp_path, protected), passphrase)
    assert caught.value.code == "keyfile.wrong-passphrase"
    assert not passphrase or passphrase not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o610, 0o700 | 0o077])
def test_a_file_that_others_have_rights_on_is_refused(tmp_path: Path, plain: Document, mode: int) -> None:
    path = written(tmp_path, plain)
    path.chmod(mode)
    assert refusal_of(lambda: load_identity(path, None)) == "keyfile.permissions"
    assert load_public(path) == HOSPITAL.public_identity()
    path.chmod(0o400)
    assert is_same(load_identity(path, None), HOSPITAL)


def test_what_is_not_a_readable_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        assert refusal_of(lambda path=path: load_identity(path, None)) == "keyfile.unreadable"  # type: ignore[misc]
        assert refusal_of(lambda path=path: load_public(path)) == "keyfile.unreadable"  # type: ignore[misc]


def test_a_public_part_is_read_without_a_passphrase(tmp_path: Path, protected: Document) -> None:
    assert load_public(written(tmp_path, protected)) == HOSPITAL.public_identity()


@pytest.mark.parametrize("field", ["role", "public", "opening_public", "n", "p", "salt", "nonce", "data"])
def test_a_changed_field_of_a_protected_file_does_not_open(tmp_path: Path, protected: Document, field: str) -> None:
    changed = json.loads(json.dumps(protected))
    other = {
        "role": "officer",
        "public": OTHER.signing.public.hex(),
        "opening_public": OTHER.opening.public.hex(),
        "n": 2**14,
        "p": 2,
        "salt": "00" * 16,
        "nonce": "00" * 12,
        "data": "00" * (len(protected["secret"]["data"]) // 2),
    }
    (changed if field in changed else changed["secret"])[field] = other[field]
    assert refusal_of(lambda: load_identity(written(tmp_path, changed), PASSPHRASE)) == "keyfile.wrong-passphrase"


def test_public_keys_that_are_not_of_the_secret_are_malformed(tmp_path: Path, plain: Document) -> None:
    for field, value in (("public", OTHER.signing.public.hex()), ("opening_public", OTHER.opening.public.hex())):
        with pytest.raises(Malformed, match="not those of its secret part"):
            load_identity(written(tmp_path, plain | {field: value}), None)


def test_other_scrypt_numbers_within_the_bounds_are_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCRYPT_N", 2**14), ("SCRYPT_R", 4), ("SCRYPT_P", 2)):
        monkeypatch.setattr(keyfile, name, value)
    save_identity(tmp_path / "key.json", HOSPITAL, PASSPHRASE)
    monkeypatch.undo()
    assert is_same(load_identity(tmp_path / "key.json", PASSPHRASE), HOSPITAL)


@pytest.mark.parametrize(
    "numbers",
    [
        {"n": 2**13},
        {"n": 2**19},
        {"n": 2**15 + 1},
        {"n": 0},
        {"n": -(2**15)},
        {"n": 2.0**15},
        {"n": "32768"},
        {"n": True},
        {"n": None},
        {"n": 10**300},
        {"r": 0},
        {"r": 17},
        {"p": 0},
        {"p": 5},
        {"n": 2**18, "r": 16},
    ],
    ids=str,
)
def test_scrypt_numbers_out_of_bounds_are_malformed_before_any_work(tmp_path: Path, protected: Document, numbers: Document) -> None:
    changed = protected | {"secret": protected["secret"] | numbers}
    with pytest.raises(Malformed, match="scrypt parameter"):
        load_identity(written(tmp_path, changed), PASSPHRASE)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        "{",
        "[" * 15_000,
        '{"a":' * 2_000,
        b"\xff\xfe",
        b"\x00" * 100,
        " " * (keyfile.FILE_BYTES_MAX + 1),
        '{"medchain_key": ' + "9" * 5000 + "}",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_a_key_file_is_malformed(tmp_path: Path, content: str | bytes) -> None:
    path = written(tmp_path, content)
    for load in (lambda: load_identity(path, PASSPHRASE), lambda: load_public(path)):
        with pytest.raises(Malformed):
            load()


@pytest.mark.parametrize(
    "change",
    [
        {"medchain_key": 2},
        {"medchain_key": True},
        {"medchain_key": "1"},
        {"role": "king"},
        {"role": None},
        {"role": ["hospital"]},
        {"role": "\ud800"},
        {"public": "zz" * 32},
        {"public": "ab" * 31},
        {"public": HOSPITAL.signing.public.hex().upper()},
        {"public": " " + HOSPITAL.signing.public.hex()},
        {"public": None},
        {"public": 5},
        {"opening_suite": 3},
        {"opening_suite": True},
        {"opening_suite": -1},
        {"opening_suite": SUITE_HYBRID},
        {"opening_public": "ab" * 31},
        {"secret": None},
        {"secret": []},
        {"secret": {}},
        {"secret": {"protection": "none"}},
        {"secret": {"protection": "none", "data": ""}},
        {"secret": {"protection": "none", "data": "c0"}},
        {"secret": {"protection": "none", "data": "92c400c400"}},
        {"secret": {"protection": "none", "data": "9291c0c0"}},
        {"secret": {"protection": "none", "data": "c0", "more": 1}},
        {"secret": {"protection": "rot13", "data": "c0"}},
        {"secret": {"protection": ["none"], "data": "c0"}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_field_is_malformed(tmp_path: Path, plain: Document, change: Document) -> None:
    with pytest.raises(Malformed):
        load_identity(written(tmp_path, plain | change), None)


def test_a_missing_field_is_malformed(tmp_path: Path, protected: Document) -> None:
    for name in protected:
        with pytest.raises(Malformed):
            load_identity(written(tmp_path, {other: value for other, value in protected.items() if other != name}), PASSPHRASE)
    for name in protected["secret"]:
        secret = {other: value for other, value in protected["secret"].items() if other != name}
        with pytest.raises(Malformed):
            load_identity(written(tmp_path, protected | {"secret": secret}), PASSPHRASE)


def test_a_name_that_stands_twice_is_malformed(tmp_path: Path, plain: Document) -> None:
    text = json.dumps(plain)
    assert is_same(load_identity(written(tmp_path, text), None), HOSPITAL)
    with pytest.raises(Malformed, match="not JSON"):
        load_identity(written(tmp_path, text.replace('"role"', '"role": "officer", "role"')), None)


def test_an_unprotected_file_cut_off_anywhere_is_malformed(tmp_path: Path, plain: Document) -> None:
    data = json.dumps(plain).encode()
    for length in range(len(data)):
        with pytest.raises(Malformed):
            load_identity(written(tmp_path, data[:length]), None)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_changed_byte_is_malformed_or_changes_nothing(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """A byte of white space may change; whatever still loads is the same identity or, for the role alone, says so itself."""
    folder = tmp_path_factory.getbasetemp() / "changed-byte"
    folder.mkdir(exist_ok=True)
    source = folder / "source.json"
    if not source.exists():
        save_identity(source, HOSPITAL, None)
    content = bytearray(source.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = load_identity(written(folder, bytes(content)), None)
    except Malformed:
        return
    assert is_same(loaded, HOSPITAL)


def test_every_refusal_has_a_meaning_that_ends_like_a_sentence() -> None:
    for code, meaning in REFUSALS.items():
        assert code.startswith("keyfile.")
        assert meaning.endswith(".")
