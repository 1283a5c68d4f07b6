"""The load seen from the benchmark: starts its process, gives it orders, and counts what it answers. Knows no transaction."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from medchain.bench import usage
from medchain.bench.load import Shape
from medchain.bench.network import Network
from medchain.bench.program import environment
from medchain.errors import InvariantBroken, Unavailable

START_SECONDS: Final = 400.0
"""To put on the chain what a kind needs first, and to sign a hundred thousand transactions."""
ANSWER_SECONDS: Final = 120.0
"""To stop it waits for what is under way, to check it reads the whole chain."""
END_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Transactions handed in together, and when their decision was known."""

    due: float
    decided: float
    transactions: int

    @property
    def latency_ms(self) -> float:
        """From when it was due until its decision was known."""
        return (self.decided - self.due) * 1_000


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of everything that was accepted."""

    accepted: int
    lost: int
    doubled: int
    refused: int
    """Decided with a refusal code: none, for every patient is new."""


class Worker:
    """The load on a network. A context manager: it works from entering until `stop`."""

    def __init__(self, network: Network, shape: Shape, *, left_out: Iterable[str] = ()) -> None:
        """`left_out`: hospitals that the load does not use, because they will lie or stand still."""
        self._command = [sys.executable, "-P", "-m", "medchain.bench.load", "--net", str(network.testnet.plan.folder)]
        self._command += [*shape.words(), "--leave-out", ",".join(left_out)]
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self.batches: list[Batch] = []
        self.accepted = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        try:
            self._hear(START_SECONDS)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def cpu_seconds(self) -> float:
        """Return the processor time that the load has used."""
        return usage.cpu_seconds(self._running().pid)

    def report(self) -> list[Batch]:
        """Take over what was decided since the last report; return everything so far."""
        return self._take(self._order("report"))

    def stop(self) -> list[Batch]:
        """Let the load end what is under way; return everything."""
        return self._take(self._order("stop"))

    def check(self, url: str) -> Checked:
        """Compare all that was accepted with the chain of the hospital at `url`."""
        answer = self._order(f"check {url}")
        return Checked(answer["accepted"], answer["lost"], answer["doubled"], sum(answer["refused"].values()))

    def _take(self, answer: dict[str, Any]) -> list[Batch]:
        self.accepted = answer["accepted"]
        self.batches += [Batch(*row) for row in answer["batches"]]
        return self.batches

    def _order(self, words: str) -> dict[str, Any]:
        process = self._running()
        if process.stdin is None:
            raise InvariantBroken("the load was started without a way to speak to it")
        try:
            process.stdin.write(words.encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise Unavailable("the load has ended: look at what it said above") from None
        return self._hear()

    def _hear(self, patience_s: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next answer. Raises Unavailable when the load has ended or is silent for too long."""
        stream = self._running().stdout
        if stream is None:
            raise InvariantBroken("the load was started without a way to hear it")
        with selectors.DefaultSelector() as ready:
            ready.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not ready.select(patience_s):
                    raise Unavailable(f"the load does not answer within {patience_s:.0f} s")
                piece = os.read(stream.fileno(), 2**20)
                if not piece:
                    raise Unavailable("the load has ended: look at what it said above")
                self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise InvariantBroken("the load was used outside its context")
        return self._process
