"""The names of the kinds of liars, and how a seed chooses one. Two names joined by " + " are one liar that does both."""

from __future__ import annotations

import random
from typing import Final

TWINS: Final = "twins"
OTHER_AUTHENTICATIONS: Final = "other authentications"
PLAIN_KINDS: Final = (
    "double voter", "yes-man", "half deaf", "withholder", "replayer", "forger", "far viewer", "two blocks", "false blocks", "framer",
    "hidden bytes", "lazy primary", "usurper", "view liar", "miser", "sync liar", "amnesia liar", "spammer",
)  # fmt: skip
"""Those that need nothing but an engine."""
LIAR_KINDS: Final = (*PLAIN_KINDS, OTHER_AUTHENTICATIONS, TWINS)
AND: Final = " + "


def draw_kind(dice: random.Random) -> str:
    """Return what a liar is: one kind, or now and then two at once."""
    kind = dice.choice(LIAR_KINDS)
    second = dice.choice(PLAIN_KINDS)
    return f"{kind}{AND}{second}" if dice.randrange(4) == 0 and second != kind else kind
