"""`python -m medchain`: the same command as the installed `medchain`."""

from __future__ import annotations

import sys

from medchain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
