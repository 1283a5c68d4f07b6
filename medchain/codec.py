"""Canonical msgpack: one value, one byte string.

Values are None, bool, int (64 bit), bytes, str, list (tuples encode as lists) and dict with str keys in ascending order of their UTF-8
bytes. No floats, no extension types, shortest forms only. Whatever comes from outside is decoded here under explicit bounds; hostile bytes
raise `Malformed` and nothing else. Structures of the chain are positional lists; the readers below take them apart field by field, so an
unknown or missing field is an error. This module knows no structure of the chain.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md ; canonical = the bytes that `encode` makes, checked by encoding again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgpack

from medchain.errors import InvariantBroken, Malformed

BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest byte string that is decoded unless the caller sets a lower bound: four full blocks."""
DEPTH_MAX: Final = 16
"""Deepest nesting of lists and maps: the deepest structure of the protocol (a block in a peer message) needs ten."""
ITEMS_MAX: Final = 500_000
"""Most values in one message, so that a small message cannot become a large object graph."""
UNSCANNED_BYTES_MAX: Final = 4 * 1024
"""Up to this size the bytes are decoded at once and the value is looked at instead, which is cheaper: at eighty times the size its objects
take 320 KiB, and it holds no more values than bytes. Votes, headers, transactions and rows are that small."""
PACKER_KEPT_BYTES_MAX: Final = 1024 * 1024
"""A packer that packed more is thrown away, so that one huge message does not hold its memory for good."""
UINT64_MAX: Final = 2**64 - 1
INT64_MIN: Final = -(2**63)

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """Return the one byte string of `value`.

    Raises InvariantBroken for values outside the format (floats, sets, non-text keys, integers beyond 64 bits): only our own code calls
    this.
    """
    try:
        kind = type(value)
        if (kind is list or kind is tuple) and _PLAIN.issuperset(map(type, value)):  # most rows and signed statements are flat
            return _pack(value)
        return _pack(_ordered(value, 0))
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise InvariantBroken(f"a value cannot be encoded: {type(error).__name__}") from error


_IDLE_PACKERS: Final[list[msgpack.Packer]] = []
"""Packers that nobody uses now. Making one costs several times what packing a vote does, because each brings a buffer of its own."""


def _pack(value: Any) -> bytes:
    """Pack with an idle packer; threads never share one, since taking it off the list is one step. One that raised is not used again."""
    try:
        packer = _IDLE_PACKERS.pop()
    except IndexError:
        packer = msgpack.Packer(use_bin_type=True, strict_types=False)
    packed: bytes = packer.pack(value)
    if len(packed) <= PACKER_KEPT_BYTES_MAX:  # its buffer is as large as the largest thing it ever packed
        _IDLE_PACKERS.append(packer)
    return packed


def join(parts: Sequence[bytes]) -> bytes:
    """Return the encoding of the list whose items are encoded already: `join([encode(a), encode(b)])` is `encode([a, b])`."""
    count = len(parts)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(parts)


def split(data: bytes) -> list[bytes]:
    """Return the encodings of the items of an own list, not taken apart any further: what `join` was given.

    As with `decode_own` nothing is bounded. Raises Malformed when the bytes are no list.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    try:
        count = unpacker.read_array_header()
        ends = [unpacker.tell()]
        for _ in range(count):
            unpacker.skip()
            ends.append(unpacker.tell())
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"the bytes are no list ({type(error).__name__})") from None
    if ends[-1] != len(data):
        raise Malformed(f"{len(data) - ends[-1]} bytes are left over after the list")
    return [data[start:end] for start, end in itertools.pairwise(ends)]


_PLAIN: Final = frozenset({bytes, int, str, bool, type(None)})
"""What needs no look inside; nearly every value of a message is one of these, so lists are spared the call."""


def _ordered(value: Any, depth: int) -> Any:
    """Check the types of our own value and put map keys into order."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth >= DEPTH_MAX:
        raise InvariantBroken(f"a value is nested deeper than {DEPTH_MAX}")
    if kind is list or kind is tuple:
        if _PLAIN.issuperset(map(type, value)):
            return value
        return [item if type(item) in _PLAIN else _ordered(item, depth + 1) for item in value]
    if kind is dict:
        if any(type(key) is not str for key in value):
            raise InvariantBroken("a map key is not text")
        return {key: _ordered(value[key], depth + 1) for key in sorted(value, key=str.encode)}
    if isinstance(value, int):  # IntEnum and the like: the number is what is meant
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise InvariantBroken(f"a value of type {kind.__name__} has no encoding")


def decode(data: bytes, *, bytes_max: int = BYTES_MAX, depth_max: int = DEPTH_MAX, items_max: int = ITEMS_MAX) -> Any:
    """Return the value of canonical bytes (lists as lists).

    Raises Malformed when the bytes are longer than `bytes_max`, nested deeper than `depth_max`, hold more than `items_max` values, are
    truncated, have bytes left over, hold a type that is not in the format, or are not the canonical encoding of what they mean.
    """
    if len(data) > bytes_max:
        raise Malformed(f"{len(data)} bytes are more than the {bytes_max} allowed here")
    is_small = len(data) <= UNSCANNED_BYTES_MAX and len(data) <= items_max
    if not is_small:
        _scan(data, depth_max, items_max)
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True, object_pairs_hook=_read_map)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        _scan(data, depth_max, items_max)  # its sentences say better what is wrong
        raise Malformed(f"the bytes are not well-formed msgpack ({type(error).__name__})") from None
    if is_small:
        _check_shape(value, depth_max)
    if _pack(value) != data:
        raise Malformed("the bytes are not in canonical form")
    return value


def decode_own(data: bytes) -> Any:
    """Return the value of bytes that `encode` made here or that a root covers which `encode` led to: rows of the state.

    Nothing is bounded and the form is not looked at again, which is most of what `decode` costs. Raises Malformed when the bytes are no
    msgpack at all.
    """
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"the bytes are not well-formed msgpack ({type(error).__name__})") from None


def _check_shape(value: Any, depth_max: int) -> None:
    """Refuse of a decoded value what `_scan` refuses of bytes: nesting and foreign types. One step a level, no recursion."""
    level = [] if type(value) in _PLAIN else [value]
    for _ in range(depth_max):
        if not level:
            return
        below: list[Any] = []
        for nested in level:
            kind = type(nested)
            if kind is list:
                inside = nested
            elif kind is dict:
                inside = nested.values()
            else:
                raise Malformed(_FOREIGN)
            if not _PLAIN.issuperset(map(type, inside)):
                below += [item for item in inside if type(item) not in _PLAIN]
        level = below
    for nested in level:
        raise Malformed(f"values are nested deeper than {depth_max}" if type(nested) in (list, dict) else _FOREIGN)


def _scan(data: bytes, depth_max: int, items_max: int) -> None:
    """Refuse what is truncated, too deep, too many or of a foreign type, before any object is made.

    A message full of empty lists takes eighty times its size once it is decoded. One step a value, no recursion.
    """
    size = len(data)
    position = 0
    count = 1
    remaining = 1
    outer: list[int] = []  # values still to come in each list or map around the present one
    try:
        while True:
            while remaining:
                remaining -= 1
                head = data[position]
                step = _STEPS[head]
                if step > 0:
                    position += step
                    continue
                if head == 0xC4:  # short bytes, the commonest value of the protocol: the general case below, spelled out
                    position += 2 + data[position + 1]
                    continue
                if step < 0:  # the length follows in -step bytes
                    position += 1 - step
                    if position > size:
                        raise Malformed(_TRUNCATED)
                    length = int.from_bytes(data[position + step : position])
                    if head in _STRING_HEADS:
                        position += length
                        continue
                    values = 2 * length if head in _MAP_HEADS else length
                elif 0x80 <= head <= 0x9F:
                    values = head & 0x0F if head >= 0x90 else 2 * (head & 0x0F)
                    position += 1
                else:
                    raise Malformed(_FOREIGN)
                count += values
                if count > items_max:
                    raise Malformed(f"more than {items_max} values")
                if len(outer) >= depth_max:
                    raise Malformed(f"values are nested deeper than {depth_max}")
                outer.append(remaining)
                remaining = values
            if not outer:
                break
            remaining = outer.pop()
    except IndexError:
        raise Malformed(_TRUNCATED) from None
    if position > size:
        raise Malformed(_TRUNCATED)
    if position < size:
        raise Malformed(f"{size - position} bytes are left over after the value")


def _steps() -> tuple[int, ...]:
    """For each first byte of a value: its whole length if that is fixed, minus the width of the length that follows, or 0 for the rest."""
    steps = [0] * 256
    for head in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):  # small integers, nil, false, true
        steps[head] = 1
    for head in range(0xA0, 0xC0):  # short text
        steps[head] = 1 + (head & 0x1F)
    for first in (0xCC, 0xD0):  # integers of 8, 16, 32, 64 bits, without and with sign
        for power in range(4):
            steps[first + power] = 1 + (1 << power)
    for head, width in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4), (0xDC, 2), (0xDD, 4), (0xDE, 2), (0xDF, 4)):
        steps[head] = -width
    return tuple(steps)


_TRUNCATED: Final = "the bytes end before the value does"
_FOREIGN: Final = "a value of a type outside the format (float, extension) is not allowed"
_STEPS: Final = _steps()
_STRING_HEADS: Final = frozenset((0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB))
_MAP_HEADS: Final = frozenset((0xDE, 0xDF))


def _read_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Make a map whose keys are text in strictly ascending order of their UTF-8 bytes."""
    previous: bytes | None = None
    for key, _ in pairs:
        if type(key) is not str:
            raise Malformed("a map key is not text")
        present = key.encode()
        if previous is not None and present <= previous:
            raise Malformed("map keys are not in order, or one is there twice")
        previous = present
    return dict(pairs)


def as_fields(value: Any, count: int, what: str) -> list[Any]:
    """Return `value` if it is a list of exactly `count` fields; `what` names the structure in the message. Raises Malformed."""
    if type(value) is not list or len(value) != count:
        raise Malformed(f"{what} must have exactly {count} fields")
    return value


def as_list(value: Any, maximum: int, what: str) -> list[Any]:
    """Return `value` if it is a list of at most `maximum` items. Raises Malformed."""
    if type(value) is not list:
        raise Malformed(f"{what} must be a list")
    if len(value) > maximum:
        raise Malformed(f"{what} has {len(value)} items, at most {maximum} are allowed")
    return value


def as_items(value: Any, maximum: int, what: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    """Read a list of at most `maximum` items with `read`. Raises Malformed."""
    return tuple(read(item) for item in as_list(value, maximum, what))


def as_bytes(value: Any, what: str, *, length: int | None = None, maximum: int = BYTES_MAX) -> bytes:
    """Return `value` if it is bytes of exactly `length` (when given) or at most `maximum`. Raises Malformed."""
    if type(value) is not bytes:
        raise Malformed(f"{what} must be bytes")
    if length is not None and len(value) != length:
        raise Malformed(f"{what} must be {length} bytes long, not {len(value)}")
    if len(value) > maximum:
        raise Malformed(f"{what} is {len(value)} bytes long, at most {maximum} are allowed")
    return value


def as_uint(value: Any, what: str, maximum: int = UINT64_MAX) -> int:
    """Return `value` if it is an integer from 0 to `maximum`. Raises Malformed."""
    if type(value) is not int or value < 0 or value > maximum:
        raise Malformed(f"{what} must be a whole number from 0 to {maximum}")
    return value


def as_bool(value: Any, what: str) -> bool:
    """Return `value` if it is a truth value. Raises Malformed."""
    if type(value) is not bool:
        raise Malformed(f"{what} must be true or false")
    return value


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def as_text(value: Any, what: str, maximum: int) -> str:
    """Return `value` if it is text of at most `maximum` UTF-8 bytes without control characters. Raises Malformed."""
    if type(value) is not str:
        raise Malformed(f"{what} must be text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # JSON can spell half a character; no canonical bytes have it
        raise Malformed(f"{what} holds half a character (a lone surrogate)") from None
    if size > maximum:
        raise Malformed(f"{what} is longer than {maximum} bytes")
    if _CONTROL.search(value) is not None:
        raise Malformed(f"{what} holds a control character")
    return value


def as_optional(value: Any, read: Callable[[Any], T]) -> T | None:
    """Return None for None, else what `read` makes of the value."""
    return None if value is None else read(value)
