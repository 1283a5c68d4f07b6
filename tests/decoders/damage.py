"""Damage: many hostile byte strings out of few real ones, all from one generator, so that a failing one comes again.

Half is done to the bytes (bits turned, cut, spliced, lengths blown up, nested deep), half to the value they mean, so that it gets past the
outer form. Knows no decoder.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from medchain import codec
from medchain.errors import InvariantBroken, Malformed

NUMBERS = (0, 1, -1, 2, 127, 128, 2**31, 2**32, 2**48, 2**48 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
TEXTS = ("", "\x00", "x" * 300, "é" * 40, "\u202e", "a/../b", "9" * 400, "-0", "1e999", "0x10")
SCRAWLS = (b"1e999", b"-1e999", b"-1", b"1.5", b"NaN", b"Infinity", b"9" * 400, b"0x1", b"1_0", b"null", b"true", b'"a"', b"[]", b"{}", b"")
LENGTHS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc5\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
)
"""Heads of msgpack that promise four thousand million items, bytes, characters or pairs."""
SMALL_BOMBS = (
    b"\x91" * 100_000,
    b"\x81\xa1a" * 50_000 + b"\x00",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'"' + b"\\" * 100_000,
    b"9" * 100_000,
    b"-" * 100_000,
    b"a = " + b"[" * 2_000,
    b"a." * 2_000 + b"b = 1",
    b"\x30\x84\xff\xff\xff\xff" + bytes(100_000),
    b"\x30\x80" * 50_000,
    *LENGTHS,
)
"""Bytes that a careless reader pays dearly for: depth, promised lengths, long numbers, quotes left open."""
LARGE_BOMBS = (
    b"\xdd\x00\x06\x00\x00" + b"\x90" * 0x60000,
    b"\xdd\x00\x06\x00\x00" + b"\x80" * 0x60000,
    b"\x00" * 5_000_000,
    b"[" + b"[]," * 300_000 + b"[]]",
    b'"' + b"\\" * 5_000_000,
    b"9" * 5_000_000,
)
"""Counts that become large object graphs, and plain length."""


def damaged(samples: Sequence[bytes], dice: random.Random, count: int) -> Iterator[bytes]:
    """Yield hostile bytes near the samples."""
    for _ in range(count):
        data = dice.choice(samples)
        for _ in range(dice.choice((1, 1, 1, 2, 4))):
            data = dice.choice(_WAYS)(data, samples, dice)
        yield data


def _turn(data: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    if not data:
        return b"\x00"
    place = dice.randrange(len(data))
    return data[:place] + bytes((data[place] ^ dice.choice((1, 2, 4, 8, 16, 32, 64, 128, 255)),)) + data[place + 1 :]


def _cut(data: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    start, end = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
    return dice.choice((data[:start], data[end:], data[:start] + data[end:]))


def _insert(data: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    place = dice.randint(0, len(data))
    other = dice.choice(samples)
    start = dice.randint(0, len(other))
    piece = dice.choice((dice.randbytes(3), dice.choice(LENGTHS), other[start : start + 40], b"\x91" * 40, b"\x00" * 70, b"\xc0"))
    return data[:place] + piece + data[place + (len(piece) if dice.random() < 0.5 else 0) :]


def _splice(data: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    other = dice.choice(samples)
    return data[: dice.randint(0, len(data))] + other[dice.randint(0, len(other)) :]


def _number(data: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    """Another number, or none, where text has digits."""
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return _turn(data, samples, dice)
    place = dice.choice(found)
    return data[: place.start()] + dice.choice(SCRAWLS) + data[place.end() :]


def _value(data: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    """Damage what the bytes mean, in msgpack or in JSON; bytes that mean nothing any more are turned instead."""
    for read, write in ((codec.decode, codec.encode), (json.loads, _to_json)):
        try:
            value = read(data)
        except (Malformed, ValueError, RecursionError):
            continue
        try:
            return write(_damage(value, dice, 0))
        except (InvariantBroken, TypeError, ValueError, RecursionError):  # a number beyond 64 bits, say
            return data
    return _turn(data, samples, dice)


def _to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


_WAYS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _turn,
    _cut,
    _insert,
    _splice,
    _number,
    _value,
    _value,
    _value,
    _value,
)


def _damage(value: Any, dice: random.Random, depth: int) -> Any:
    if type(value) is bytes and dice.random() < 0.5:
        inner = _inside(value)
        if inner is not None:
            return codec.encode(_damage(inner, dice, depth + 1))
    if type(value) is dict and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        rest = {key: item for key, item in value.items() if key != name}
        return dice.choice((rest, rest | {dice.choice(TEXTS): value[name]}, value | {name: _damage(value[name], dice, depth + 1)}))
    if type(value) is not list or not value or dice.random() < 0.15:
        return _other(value, dice)
    place = dice.randrange(len(value))
    before, item, after = value[:place], value[place], value[place + 1 :]
    way = dice.randrange(8)
    if way == 0:
        return [*before, item, item, *after]
    if way == 1:
        return before + after
    if way == 2:
        return [*after, item, *before]
    if way == 3:
        return [*before, _other(item, dice), item, *after]
    return [*before, _damage(item, dice, depth + 1), *after]


def _other(value: Any, dice: random.Random) -> Any:
    """Another value, most often of the same type."""
    if type(value) is int and dice.random() < 0.7:
        return dice.choice((*NUMBERS, value + 1, max(value - 1, 0)))
    if type(value) is bytes and value and dice.random() < 0.7:
        return dice.choice((value[:-1], value + b"\x00", b"", dice.randbytes(len(value)), value[:-1] + bytes((value[-1] ^ 1,))))
    if type(value) is str and dice.random() < 0.7:
        return dice.choice((*TEXTS, value + "x", value[:-1], value.upper()))
    return dice.choice(
        (None, True, False, dice.choice(NUMBERS), dice.choice(TEXTS), b"", bytes(32), bytes(64), [], [None], {}, {"a": 1}, [[[[]]]])
    )


def _inside(data: bytes) -> Any:
    try:
        value = codec.decode(data)
    except Malformed:
        return None
    return value if type(value) is list else None
