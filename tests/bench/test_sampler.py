"""The sampler gives processor time to the part of a node whose code spent it, also in threads that are met between two pieces of work."""

from __future__ import annotations

import json
import subprocess
import sys

from medchain.bench.sampler import EXECUTE, LEVELDB, NETWORK, VERIFY, part_of

PROGRAM = """
import hashlib, pathlib, signal, sys, threading, time
from medchain.bench.sampler import Sampler

sampler = Sampler()
sampler.start()
def work(until=0.4):
    began = time.thread_time()
    while time.thread_time() - began < until:
        hashlib.sha256(bytes(4096)).digest()
threads = [threading.Thread(target=work, name=name) for name in sys.argv[2:]]
for thread in threads:
    thread.start()
work(0.2)
for thread in threads:
    while thread.is_alive():
        thread.join(0.01)
signal.setitimer(signal.ITIMER_PROF, 0)
sampler.write(pathlib.Path(sys.argv[1]))
"""


def test_files_of_the_package_belong_to_parts():
    assert part_of("ledger/records.py") == EXECUTE
    assert part_of("crypto/signing.py") == VERIFY
    assert part_of("codec.py") == ""


def test_time_of_worker_threads_outside_the_package_goes_to_what_they_are_for(tmp_path):
    file = tmp_path / "sampled.json"
    subprocess.run([sys.executable, "-c", PROGRAM, str(file), "verify_0", "store-write_0"], check=True, timeout=60)
    seen = json.loads(file.read_text(encoding="utf-8"))
    assert all(seen["parts"][part] > 0.1 for part in (VERIFY, LEVELDB, NETWORK)), seen["parts"]
    assert {"thread verify", "thread store-write", "event loop and sockets"} <= set(seen["own"])
