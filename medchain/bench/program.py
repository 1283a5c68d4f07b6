"""How another process finds this very program, whatever is installed. Imports next to nothing: who needs it may have to start fast."""

from __future__ import annotations

import os
from pathlib import Path

import medchain


def environment() -> dict[str, str]:
    """Return the environment in which `python -m medchain...` is the program that runs here."""
    parent = str(Path(medchain.__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (parent, os.environ.get("PYTHONPATH"))))}
