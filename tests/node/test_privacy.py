"""A process with unlocked keys leaves nothing of itself on the disk for others."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import os, resource, sys
from medchain.node.privacy import keep_private
keep_private()
with open(sys.argv[1], "w") as file:
    file.write("x")
print(resource.getrlimit(resource.RLIMIT_CORE), oct(os.stat(sys.argv[1]).st_mode & 0o777))
"""


def test_core_files_cannot_hold_unlocked_keys_and_others_get_no_right_on_files(tmp_path):
    found = subprocess.run([sys.executable, "-c", PROBE, str(tmp_path / "made")], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "(0, 0) 0o600"
