"""Every decoder of every room, fed hostile bytes made from real ones: refusals of its kind and nothing else, in bounded time and memory.

lessons.md: a fuzzed view-change message killed a node (SmartBFT-Go/fabric #279). What a decoder lets in has one encoding, and comes back.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.decoders.damage import LARGE_BOMBS, SMALL_BOMBS, damaged
from tests.decoders.table import EXEMPT, Decoder, table

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(^|_)(decode|from|load|read|parse|unpack)(_|$)")
EXTRA = ("medchain.wire.methods:check_params", "medchain.network.framing:Assembler.feed")
"""Decoders that are named otherwise."""
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")
EXAMPLES = 800
EXAMPLES_LONG = 20_000
SECONDS_MAX = 5
"""Of this process, for all bombs together; a tenth of it on an idle machine."""
MEMORY_BYTES_MAX = 128 * 1024 * 1024
"""Half a million small values (codec.ITEMS_MAX) as objects, and copies of the bytes."""


def public_decoders() -> list[str]:
    """Every public function and method of medchain whose name says that it reads something."""
    found = []
    for path in sorted((ROOT / "medchain").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            inner = [(f"{node.name}.", item) for item in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
            for prefix, item in inner:
                is_function = isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                if is_function and not item.name.startswith("_") and not prefix.startswith("_") and NAMED.search(item.name):
                    found.append(f"{module}:{prefix}{item.name}")
    return found


FUZZED = sorted({*public_decoders(), *EXTRA} - set(EXEMPT))


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Decoder]:
    return table(tmp_path_factory.mktemp("decoders"))


def test_every_public_decoder_is_in_the_table_or_exempt_with_a_reason(decoders: dict[str, Decoder]) -> None:
    """A new decoder comes with real bytes for it: add it to tests/decoders/table.py."""
    assert sorted(decoders) == FUZZED
    assert set(EXEMPT) <= set(public_decoders())
    assert all(EXEMPT.values())


def test_every_name_of_the_table_is_a_function(decoders: dict[str, Decoder]) -> None:
    for name in decoders:
        module, _, path = name.partition(":")
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        assert callable(found), name


@pytest.mark.parametrize("name", FUZZED)
def test_real_bytes_are_read_and_come_back(name: str, decoders: dict[str, Decoder]) -> None:
    decoder = decoders[name]
    assert decoder.samples
    for sample in decoder.samples:
        noun = decoder.read(sample)
        if decoder.write is None:
            continue
        assert decoder.read(decoder.write(noun)) == noun
        assert decoder.write(noun) == sample or not decoder.is_canonical


def feed(decoder: Decoder, data: bytes) -> bool:
    """Read hostile bytes; return whether they were let in, having checked what that promises."""
    try:
        noun = decoder.read(data)
    except decoder.refusals:
        return False
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error} on {len(data)} bytes {data[:400].hex()}") from error
    if decoder.write is not None:
        written = decoder.write(noun)
        assert written == data or not decoder.is_canonical, data.hex()
        assert decoder.read(written) == noun, data.hex()
    return True


@pytest.mark.parametrize("name", FUZZED)
def test_damaged_bytes_are_refused_or_have_one_meaning(name: str, decoders: dict[str, Decoder]) -> None:
    for data in damaged(decoders[name].samples, random.Random(name), EXAMPLES):
        feed(decoders[name], data)


@pytest.mark.long
@pytest.mark.parametrize("name", FUZZED)
def test_very_many_damaged_bytes_are_refused_or_have_one_meaning(name: str, decoders: dict[str, Decoder]) -> None:
    for data in damaged(decoders[name].samples, random.Random(f"long {name}"), EXAMPLES_LONG):
        feed(decoders[name], data)


@pytest.mark.parametrize("name", FUZZED)
def test_bytes_of_every_other_decoder_are_refused_or_have_one_meaning(name: str, decoders: dict[str, Decoder]) -> None:
    for other in decoders.values():
        for sample in other.samples[:2]:
            feed(decoders[name], sample)


@pytest.mark.parametrize("name", FUZZED)
def test_small_bombs_cost_no_time(name: str, decoders: dict[str, Decoder]) -> None:
    """Depth and promised lengths are bounded before any object is made, also behind a real beginning."""
    started = time.process_time()
    for bomb in SMALL_BOMBS:
        for sample in decoders[name].samples[:1]:
            feed(decoders[name], bomb)
            feed(decoders[name], sample[: len(sample) // 2] + bomb)
    assert time.process_time() - started < SECONDS_MAX


DOORS = (
    ("medchain.codec:decode", 0),
    ("medchain.codec:decode", 2),
    ("medchain.rpc.requests:read_json", 3),
    ("medchain.rpc.requests:read_json", 4),
)
"""The two that take long bytes apart for all others, and the long bytes that each of them knows."""
EVERYTHING = [(name, number) for name in FUZZED for number in range(len(LARGE_BOMBS)) if (name, number) not in DOORS]


@pytest.mark.parametrize(("name", "number"), [*DOORS, *(pytest.param(*row, marks=pytest.mark.long) for row in EVERYTHING)])
def test_no_bytes_become_large_objects(name: str, number: int, decoders: dict[str, Decoder]) -> None:
    decoder = decoders[name]
    tracemalloc.start()
    try:
        with contextlib.suppress(*decoder.refusals):
            decoder.read(LARGE_BOMBS[number])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX


def test_damage_gets_past_the_outer_form(decoders: dict[str, Decoder]) -> None:
    """A fuzzer whose bytes are all refused at the door proves nothing: some must be let in, and differ from the real ones."""
    for name in ("medchain.chain.vote:ViewChange.from_value", "medchain.wire.peer:decode_message", "medchain.chain.block:Block.decode"):
        decoder = decoders[name]
        accepted = [data for data in damaged(decoder.samples, random.Random(name), EXAMPLES) if feed(decoder, data)]
        assert len(set(accepted) - set(decoder.samples)) > 10, name
