"""Files of people: kinds, the FHIR check, outputs that appear whole or not at all, scratch files that leave nothing."""

from __future__ import annotations

import json
import os
import stat

import pytest

from medchain.client import files
from medchain.client.files import (
    FHIR_BUNDLE,
    PLAIN_FILE,
    Output,
    check_fhir,
    check_output,
    kind_of_file,
    scratch_file,
    scratch_folder,
    size_of,
)  # fmt: skip
from medchain.errors import Rejected


def code_of(act) -> str:
    with pytest.raises(Rejected) as refused:
        act()
    assert refused.value.message
    return refused.value.code


def test_json_is_taken_for_fhir_and_everything_else_for_a_plain_file(tmp_path):
    assert [kind_of_file(tmp_path / name) for name in ("a.json", "A.JSON")] == [FHIR_BUNDLE] * 2
    assert [kind_of_file(tmp_path / name) for name in ("a.dcm", "json", "a.json.gz", "a")] == [PLAIN_FILE] * 4


@pytest.mark.parametrize("text", ['{"resourceType":"Bundle"}', '\ufeff{"resourceType":"Patient","id":"\u4f8b"}'])
def test_a_fhir_document_passes(tmp_path, text):
    path = tmp_path / "bundle.json"
    path.write_text(text, encoding="utf-8")
    check_fhir(path)


def test_real_bundles_pass(shared_data):
    bundles = sorted((shared_data / "fhir-synthea").rglob("*.json"))[:5]
    if not bundles:
        pytest.skip("there are no bundles in shared/data/fhir-synthea")
    for bundle in bundles:
        check_fhir(bundle)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", b'{"resourceType":7}', b'{"resourceType":""}', b'{"type":"Bundle"}', b"\xff\xfe{}", b"[" * 100_000],
)
def test_what_is_no_fhir_document_is_refused(tmp_path, data):
    path = tmp_path / "bundle.json"
    path.write_bytes(data)
    assert code_of(lambda: check_fhir(path)) == "client.not-fhir"


def test_a_document_too_large_to_check_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FHIR_BYTES_MAX", 10)
    path = tmp_path / "bundle.json"
    path.write_bytes(b'{"resourceType":"Bundle"}')
    assert code_of(lambda: check_fhir(path)) == "client.fhir-too-large"


def test_only_ordinary_readable_files_are_read(tmp_path):
    path = tmp_path / "scan.dcm"
    path.write_bytes(b"12345")
    assert size_of(path) == 5
    for wrong in (tmp_path / "absent", tmp_path):
        assert code_of(lambda wrong=wrong: size_of(wrong)) == "client.unreadable-file"
    assert code_of(lambda: check_fhir(tmp_path / "absent.json")) == "client.unreadable-file"


@pytest.fixture(params=["nameless", "named"])
def kind_of_draft(request, monkeypatch):
    """Both ways to keep a draft: without a name, and with one where the file system knows no other."""
    if request.param == "named":
        monkeypatch.setattr(files, "_NAMELESS", None)
    elif files._NAMELESS is None:
        pytest.skip("this system has no nameless files")
    return request.param


def test_an_output_appears_whole_when_it_is_published(tmp_path, kind_of_draft):
    path = tmp_path / "copy.json"
    with Output(path) as output:
        output.file.write(b"all of it")
        assert not path.exists()
        output.publish()
    assert path.read_bytes() == b"all of it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["copy.json"]


def test_an_output_that_is_not_published_leaves_nothing(tmp_path, kind_of_draft):
    with pytest.raises(ValueError), Output(tmp_path / "copy.json") as output:
        output.file.write(b"half of it")
        output.file.flush()
        if kind_of_draft == "nameless":
            assert os.listdir(tmp_path) == [], "a killed process would leave plaintext behind"
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_an_output_never_replaces_a_file(tmp_path, kind_of_draft):
    path = tmp_path / "copy.json"
    with Output(path) as output:
        path.write_bytes(b"came first")
        assert code_of(output.publish) == "client.output-exists"
    assert path.read_bytes() == b"came first"
    assert code_of(lambda: Output(path)) == "client.output-exists"
    assert os.listdir(tmp_path) == ["copy.json"]


def test_an_output_needs_a_folder(tmp_path):
    for path in (tmp_path / "no" / "copy.json", tmp_path / "file" / "copy.json"):
        (tmp_path / "file").write_bytes(b"")
        assert code_of(lambda path=path: check_output(path)) == "client.output-unwritable"
        assert code_of(lambda path=path: Output(path)) == "client.output-unwritable"
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    assert code_of(lambda: check_output(tmp_path / "dangling")) == "client.output-exists"


def test_scratch_files_have_no_name_and_are_gone_afterwards(tmp_path):
    with scratch_file(tmp_path) as scratch:
        scratch.write(b"ciphertext")
        assert os.listdir(tmp_path) == []
    assert os.listdir(tmp_path) == []
    with pytest.raises(Rejected), scratch_file(tmp_path / "absent"):
        raise AssertionError("unreachable")


def test_scratch_lies_beside_the_file_where_that_can_be_written(tmp_path):
    assert scratch_folder(tmp_path / "a.json") == tmp_path
    assert scratch_folder(tmp_path / "absent" / "a.json") != tmp_path / "absent"


def test_json_with_a_resource_type_of_our_own_sample_passes(repository):
    sample = repository / "medchain" / "cli" / "sample_bundle.json"
    if not sample.exists():
        pytest.skip("the sample bundle is not here")
    check_fhir(sample)
    assert json.loads(sample.read_text(encoding="utf-8"))["resourceType"] == "Bundle"
