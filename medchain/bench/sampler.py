"""Where a process spends its processor time: samples of every thread, by the room of the code that ran.

The interval timer counts processor time of the whole process and interrupts the main thread between two steps of Python code; what each
thread has used since the last sample (its own CPU clock, so a check that runs without the interpreter lock is seen) goes to the code it
stands in. Knows rooms and files by name, and no node.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import medchain

INTERVAL_SECONDS: Final = 0.002
PLACES_MAX: Final = 150
VERIFY: Final = "verify"
EXECUTE: Final = "execute"
STATE: Final = "state"
LEVELDB: Final = "leveldb"
NETWORK: Final = "network"
CONSENSUS: Final = "consensus"
REST: Final = "rest"
PARTS: Final = (VERIFY, EXECUTE, STATE, LEVELDB, NETWORK, CONSENSUS, REST)
"""What the time is divided into."""

_FOLDER: Final = str(Path(medchain.__file__).parent) + os.sep
_PART_OF: Final[tuple[tuple[str, str], ...]] = (
    ("crypto/signing.py", VERIFY), ("engine/verification.py", VERIFY),
    ("store/tree.py", STATE), ("store/bucket.py", STATE),
    ("store/overlay.py", EXECUTE), ("ledger/", EXECUTE), ("engine/executor.py", EXECUTE),
    ("store/", LEVELDB),
    ("network/", NETWORK), ("rpc/", NETWORK), ("wire/", NETWORK), ("node/desk.py", NETWORK), ("engine/gossip.py", NETWORK),
    ("consensus/", CONSENSUS), ("engine/", CONSENSUS),
    ("node/assemble.py", ""), ("node/", REST), ("vault/", REST), ("telemetry.py", REST),
)  # fmt: skip
"""First match by the beginning of the path inside the package. Rooms that serve everybody (codec, crypto, chain) count for who called them;
what nobody of the package called (the loop, sockets, TLS, HTTP) is the network's."""
_PART_OF_THREAD: Final[tuple[tuple[str, str], ...]] = (("verify", VERIFY), ("store-write", LEVELDB))
"""By the beginning of the thread's name: a worker thread that is met between two pieces of work has just done one of them."""

_LOOP: Final = ("event loop and sockets", NETWORK)


def part_of(path: str) -> str:
    """Return the part that a file of the package (its path inside it) belongs to, empty for one that serves everybody."""
    return next((part for beginning, part in _PART_OF if path.startswith(beginning)), "")


def _greatest(places: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(places.items(), key=lambda row: -row[1])[:PLACES_MAX])


class Sampler:
    """Samples this process from `start` on; `write` says what it saw so far. Only in the main thread."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._main = threading.get_ident()
        self._collecting_since = 0.0
        self.collections = [0.0, 0.0, 0.0]
        """Processor seconds of the garbage collector, by generation; they count for who happened to be interrupted, too."""
        self._name_of: dict[CodeType, str] = {}
        self._threads: dict[int, tuple[str, str]] = {}
        """Thread → what it is called here, and the part that counts for it outside the package."""
        self.parts: defaultdict[str, float] = defaultdict(float)
        """Part → processor seconds."""
        self.own: defaultdict[str, float] = defaultdict(float)
        """Function of the package → processor seconds in it and in what it called outside the package."""
        self.whole: defaultdict[str, float] = defaultdict(float)
        """Function of the package → processor seconds in it and in everything it called."""

    def _note_collection(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.thread_time()
        else:
            self.collections[info["generation"]] += time.thread_time() - self._collecting_since

    def start(self) -> None:
        """Begin."""
        gc.callbacks.append(self._note_collection)
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def write(self, file: Path) -> None:
        """Write what was seen so far, JSON, whole or not at all."""
        own, whole = (_greatest(places) for places in (self.own, self.whole))
        value = {"parts": {part: self.parts[part] for part in PARTS}, "own": own, "whole": whole, "collections": self.collections}
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(value), encoding="utf-8")
        beside.replace(file)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        frames = sys._current_frames()
        if frame is not None:
            frames[self._main] = frame
        for thread, at in frames.items():
            try:
                used = time.clock_gettime(time.pthread_getcpuclockid(thread))
            except OSError:  # it has just ended
                continue
            spent = used - self._used.get(thread, used)
            self._used[thread] = used
            if spent > 0:
                places = self._places(at)
                name, usual = self._thread(thread)
                self.parts[next(filter(None, map(part_of, places)), usual)] += spent
                self.own[places[0] if places else name] += spent
                for place in places:
                    self.whole[place] += spent

    def _thread(self, number: int) -> tuple[str, str]:
        """Return a thread's name without its number, and its part."""
        found = self._threads.get(number)
        if found is None:
            name = next((thread.name for thread in threading.enumerate() if thread.ident == number), "")
            found = next(((f"thread {beginning}", part) for beginning, part in _PART_OF_THREAD if name.startswith(beginning)), _LOOP)
            self._threads[number] = found
        return found

    def _places(self, frame: FrameType | None) -> list[str]:
        """Return the functions of the package that a thread stands in, innermost first, each once."""
        found: dict[str, None] = {}
        while frame is not None:
            code = frame.f_code
            place = self._name_of.get(code)
            if place is None:
                path = code.co_filename
                inside = path[len(_FOLDER) :].replace(os.sep, "/") if path.startswith(_FOLDER) else ""
                place = self._name_of[code] = f"{inside}:{code.co_qualname}" if inside else ""
            if place:
                found[place] = None
            frame = frame.f_back
        return list(found)
