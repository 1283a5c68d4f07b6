"""The README's commands, typed one after the other as it tells, on a real network."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from medchain.cli.stage import Stage
from medchain.testnet.launch import Testnet

pytestmark = pytest.mark.cluster

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
ANSWERED = {
    "pseudonym": "PSEUDONYM", "record": "RECORD", "consent": "CONSENT", "permit": "PERMIT", "transaction": "TRANSACTION",
}  # fmt: skip
"""What a command answers, and the word that stands for it in later ones."""


def session() -> list[tuple[list[str], int]]:
    """(words, exit code) of every command of the block that begins with `testnet up`."""
    blocks = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if block.startswith("medchain testnet up"))
    found = []
    for line in block.splitlines():
        command, _, remark = line.partition("#")
        code = re.search(r"exit (\d)", remark)
        found.append((shlex.split(command)[1:], int(code[1]) if code else 0))
    return found


def test_session_of_the_readme_goes_as_it_tells(tmp_path, monkeypatch, sample_bundle):
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_bundle, "bundle.json")
    stage = Stage(io.StringIO())
    known: dict[str, str] = {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for words, code in session():
            typed = [known.get(word, word) for word in words]
            if typed[:2] == ["testnet", "up"]:
                typed += ["--base-port", "0"]  # another network may have the usual ports on this machine
            answer = stage.ask(*typed, expect=code)
            known |= {ANSWERED[name]: value for name, value in answer.items() if name in ANSWERED and isinstance(value, str)}
        assert Path("copy.json").read_bytes() == sample_bundle.read_bytes()
        assert set(known) == set(ANSWERED.values())
        assert all(row.process is None for row in Testnet.open(tmp_path / "net").status())
    finally:
        for number, handler in handlers.items():  # `testnet up` takes these signals for itself
            signal.signal(number, handler)
        if (tmp_path / "net" / "testnet.json").exists():
            Testnet.open(tmp_path / "net").stop()
