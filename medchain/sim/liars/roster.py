"""Every kind of liar by name, and how they come into a world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed
from medchain.sim.liars.history import AmnesiaLiar, Spammer, SyncLiar
from medchain.sim.liars.kinds import AND, LIAR_KINDS, OTHER_AUTHENTICATIONS, TWINS
from medchain.sim.liars.liar import Liar, LiarMaker
from medchain.sim.liars.proposals import FalseBlocks, Framer, HiddenBytes, LazyPrimary, OtherAuthentications, TwoBlocks, Usurper
from medchain.sim.liars.twins import twins
from medchain.sim.liars.views import Miser, ViewLiar
from medchain.sim.liars.votes import DoubleVoter, FarViewer, Forger, HalfDeaf, Replayer, Withholder, YesMan
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.store.keyvalue import WriteBatch

PLAIN: Final[Mapping[str, type[Liar]]] = {
    "double voter": DoubleVoter,
    "yes-man": YesMan,
    "half deaf": HalfDeaf,
    "withholder": Withholder,
    "replayer": Replayer,
    "forger": Forger,
    "far viewer": FarViewer,
    "two blocks": TwoBlocks,
    "false blocks": FalseBlocks,
    "framer": Framer,
    "hidden bytes": HiddenBytes,
    "lazy primary": LazyPrimary,
    "usurper": Usurper,
    "view liar": ViewLiar,
    "miser": Miser,
    "sync liar": SyncLiar,
    "amnesia liar": AmnesiaLiar,
    "spammer": Spammer,
}


def liar_maker(kind: str, founding: WriteBatch, accomplices: frozenset[bytes], clients: Mapping[bytes, SigningKey]) -> LiarMaker:
    """Return the maker of a liar by its name. `accomplices`: consensus keys of all liars of the world; `clients`: keys of its clients.

    Raises Malformed when there is no such liar.
    """
    kinds = kind.split(AND)
    unknown = [name for name in kinds if name not in LIAR_KINDS]
    if unknown:
        raise Malformed(f"there is no liar called {unknown[0]!r}: the kinds are {', '.join(LIAR_KINDS)}")
    twin_maker = twins(founding, accomplices)

    def make(start: Start, builder: EngineBuilder) -> EngineLike:
        engine = twin_maker(start, builder) if TWINS in kinds else builder(start)
        for name in kinds:
            if name == OTHER_AUTHENTICATIONS:
                engine = OtherAuthentications(start, engine, dict(clients))
            elif name != TWINS:
                engine = PLAIN[name](start, engine)
        return engine

    return make


def with_liars(builder: EngineBuilder, makers: Mapping[int, LiarMaker]) -> EngineBuilder:
    """Return a builder that puts these liars in the place of these nodes."""

    def build(start: Start) -> EngineLike:
        maker = makers.get(start.node)
        return builder(start) if maker is None else maker(start, builder)

    return build
