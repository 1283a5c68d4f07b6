"""Reading what a client sent: hostile JSON into values, values into requests. Pure; knows no HTTP and no method.

JSON as RFC 8259 has it, more strictly: no name twice, no NaN, no number beyond 64 bits, bounded depth and number of values. JSON-RPC 2.0
with one deviation, on purpose: a call without an id is refused, because nothing is done here without saying what became of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from medchain.errors import Malformed
from medchain.wire.methods import JSONRPC_VERSION, UINT_MAX

_MARKS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""A whole string (or what is left of one at the end), or a mark that opens, closes or separates. Linear: possessive repetition."""
_NUMBER_CHARACTERS_MAX: Final = 32
_ID_CHARACTERS_MAX: Final = 64
_METHOD_CHARACTERS_MAX: Final = 64
_NAMES: Final = frozenset(("jsonrpc", "id", "method", "params"))

RequestId = str | int


@dataclass(frozen=True, slots=True)
class Request:
    """One call; its parameters are not checked yet."""

    id: RequestId
    method: str
    params: Any


def read_json(data: bytes, *, depth_max: int, values_max: int) -> Any:
    """Return the value of JSON text. Raises Malformed for whatever else `data` is."""
    _check_shape(data, depth_max, values_max)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_read_object,
            parse_int=_read_int,
            parse_float=_read_float,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        raise Malformed("the body is not readable JSON") from None


def _check_shape(data: bytes, depth_max: int, values_max: int) -> None:
    """Refuse what is too deep or too many before any object is made."""
    depth = 0
    values = 1
    for match in _MARKS.finditer(data):
        mark = data[match.start()]
        if mark in b"[{":
            depth += 1
            values += 1
            if depth > depth_max:
                raise Malformed(f"the body is nested deeper than {depth_max}")
        elif mark in b"]}":
            depth -= 1
        elif mark in b",":
            values += 1
        if values > values_max:
            raise Malformed(f"the body holds more than {values_max} values")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _read_int(text: str) -> int:
    if len(text) > _NUMBER_CHARACTERS_MAX:
        raise ValueError("a number is too long")
    return int(text)


def _read_float(text: str) -> float:
    if len(text) > _NUMBER_CHARACTERS_MAX:
        raise ValueError("a number is too long")
    return float(text)


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def id_of(value: Any) -> RequestId | None:
    """Return the id of what may be a request, None when it has none that could be repeated in an answer."""
    identity = value.get("id") if type(value) is dict else None
    if type(identity) is str and len(identity) <= _ID_CHARACTERS_MAX:
        return identity
    if type(identity) is int and abs(identity) <= UINT_MAX:
        return identity
    return None


def read_request(value: Any) -> Request:
    """Return the call that a JSON value is. Raises Malformed with a sentence."""
    if type(value) is not dict:
        raise Malformed("a request must be an object")
    if not value.keys() <= _NAMES:
        raise Malformed("a request holds jsonrpc, id, method and params, nothing else")
    if value.get("jsonrpc") != JSONRPC_VERSION:
        raise Malformed('a request must say "jsonrpc": "2.0"')
    method = value.get("method")
    if type(method) is not str or not 0 < len(method) <= _METHOD_CHARACTERS_MAX:
        raise Malformed("a request must name its method")
    identity = id_of(value)
    if identity is None:
        raise Malformed("a request needs an id: a whole number or a short text; nothing is done here without an answer")
    return Request(identity, method, value.get("params"))
