"""The pid file: a living process is found by its lock, a dead or reused number never is."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from medchain.errors import Rejected
from medchain.node.pidfile import PidFile, running_process

HOLD = """
import sys
import threading
from pathlib import Path
from medchain.node.pidfile import PidFile
PidFile(Path(sys.argv[1])).hold()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path, repository):
    """A process that holds the file node.pid."""
    path = tmp_path / "node.pid"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.communicate()


def test_process_that_holds_the_file_is_found_until_it_is_killed(holder):
    path, process = holder
    assert running_process(path) == process.pid
    process.kill()
    process.wait()
    assert path.exists()
    assert running_process(path) is None


def test_file_held_by_another_process_is_refused(holder):
    path, process = holder
    with pytest.raises(Rejected) as caught:
        PidFile(path).hold()
    assert caught.value.code == "store.locked"
    assert running_process(path) == process.pid


def test_stale_number_is_taken_over_and_released(tmp_path):
    path = tmp_path / "node.pid"
    path.write_text("999999999999\n")
    file = PidFile(path)
    file.hold()
    assert running_process(path) == os.getpid()
    file.release()
    file.release()
    assert not path.exists()
    assert running_process(path) is None


def test_folder_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(Rejected) as caught:
        PidFile(tmp_path / "absent" / "node.pid").hold()
    assert caught.value.code == "home.unusable"


def test_question_at_the_moment_of_the_start_does_not_refuse_the_start(tmp_path):
    path = tmp_path / "node.pid"
    path.write_text("1\n", encoding="ascii")  # left by a kill -9
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.03, fcntl.flock, (asking, fcntl.LOCK_UN)).start()
        file = PidFile(path)
        file.hold()
    assert running_process(path) == os.getpid()
    file.release()
