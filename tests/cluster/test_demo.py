"""`medchain demo` as a person runs it: a process of its own, watched from outside; whatever happens, nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medchain.testnet.launch import poll

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
FIRST_STEP_S = 2.0


@pytest.fixture
def home(tmp_path):
    """The demo's folder; every process that still works there is ended, whatever the test did."""
    folder = tmp_path / "place" / "demo"
    folder.parent.mkdir()
    yield folder
    for process in processes_in(folder):
        os.kill(process, signal.SIGKILL)


def processes_in(folder: Path) -> list[int]:
    """Ids of the processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.startswith(os.fsencode(folder)) for word in words):
                found.append(int(entry.name))
    return found


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "medchain", "demo", "--home", str(home), *words]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MEDCHAIN_PASSPHRASE": "not the demo's", "MEDCHAIN_AT": "nowhere:1"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=home.parent, env=environment, text=True, **pipes)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, said


def check_nothing_left(home: Path) -> None:
    assert processes_in(home) == []
    assert list(home.parent.iterdir()) == []


def test_demo_plays_every_step_and_leaves_nothing_behind(home):
    process = start(home, "--json")
    code, out, said = finish(process)
    assert code == 0, said
    facts = json.loads(out)
    assert out.count("\n") == 1
    assert [step["step"] for step in facts["steps"]] == list(range(1, 14))
    for step in facts["steps"]:
        assert step["proves"] and step["commands"] and step["results"] and step["seconds"] > 0
        assert f"{step['step']:>3}. {step['title']}" in said
    assert re.search(r"one byte changed: .+", said)
    check_nothing_left(home)


def test_first_step_is_there_within_two_seconds(home):
    began = time.monotonic()
    process = start(home)
    try:
        shown = ""
        while "  1. 4 hospitals start" not in shown:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            shown += line
        assert time.monotonic() - began < FIRST_STEP_S
    finally:
        process.send_signal(signal.SIGINT)
        finish(process)
    check_kept_only_logs(home)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_stops_its_hospitals(home, number):
    process = start(home)
    while (line := process.stdout.readline()) and not line.startswith("  4."):
        continue
    assert line
    assert len(processes_in(home)) >= 4
    process.send_signal(number)
    code, _, said = finish(process)
    assert code == 130
    assert "Traceback" not in said
    check_kept_only_logs(home)


def check_kept_only_logs(home: Path) -> None:
    assert poll(lambda: processes_in(home) == [], 10)
    assert [path.name for path in home.parent.iterdir()] == ["demo"]


def test_kept_demo_goes_on_and_refuses_a_second_one_in_its_folder(home, shared_data):
    (bundle,) = (shared_data / "fhir-synthea").glob("Bob965_*.json")
    process = start(home, "--keep", "--hospitals", "5", "--input", str(bundle))
    code, out, said = finish(process)
    assert code == 0, said
    assert (home / "copy").read_bytes() == bundle.read_bytes()
    assert len(re.findall(r"^  [a-e]  http://127\.0\.0\.1:\d+$", out, re.MULTILINE)) == 5
    second = finish(start(home))
    assert second[0] == 2
    assert "[demo.running]" in second[2]
    stop = re.search(r"Stop them with: medchain (testnet down --home \S+)", out)[1]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-m", "medchain", *stop.split()], env=environment, check=True, capture_output=True, timeout=60)
    assert processes_in(home) == []


def test_any_file_can_be_played_with(home, tmp_path):
    image = tmp_path / "image.dcm"
    image.write_bytes(bytes(128) + b"DICM" + os.urandom(3_000_000))
    code, out, said = finish(start(home, "--input", os.path.relpath(image, home.parent)))
    assert code == 0, said
    assert "3.0 MB sealed" in out
    check_nothing_left(home)
    assert image.stat().st_size == 3_000_132


@pytest.mark.parametrize(
    ("content", "code"), [(b"{ not json", "client.not-fhir"), (b'{"a": 1}', "client.not-fhir"), (None, "client.unreadable-file")]
)
def test_bad_input_is_refused_before_anything_is_started(home, tmp_path, content, code):
    file = tmp_path / "bundle.json"
    if content is not None:
        file.write_bytes(content)
    status, out, said = finish(start(home, "--input", str(file)))
    assert status == 2
    assert f"[{code}]" in said
    assert out == ""
    check_nothing_left(home)
