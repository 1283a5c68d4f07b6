"""What the system would write of a process that holds unlocked keys: no core file, and no file for other users. Knows no key."""

from __future__ import annotations

import os
import resource


def keep_private() -> None:
    """Forbid core files (a crash would put unlocked keys on the disk) and rights of others on files that this process makes.

    To be called before the passphrase is asked for. Only the soft and hard limit of this process and its children are changed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
