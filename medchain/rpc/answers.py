"""Answers as JSON-RPC writes them: results, and each family of errors under its number. Pure.

What is our own fault says nothing but that it is ours: no traceback, no type, no text of an exception reaches a client.
"""

from __future__ import annotations

import json
from typing import Any

from medchain.errors import Malformed, MedchainError, Rejected, Unavailable
from medchain.rpc.requests import RequestId
from medchain.wire import methods

INTERNAL_SENTENCE = "the node failed to answer; its log says more"


def dump_json(value: Any) -> bytes:
    """Return the bytes of a JSON value."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def result_answer(identity: RequestId, result: Any) -> bytes:
    """Return the answer that carries a result. Raises TypeError or ValueError when the result is no JSON: our own bug."""
    return dump_json({"jsonrpc": methods.JSONRPC_VERSION, "id": identity, "result": methods.to_json(result)})


def error_answer(identity: RequestId | None, error: dict[str, Any]) -> bytes:
    """Return the answer that carries an error object."""
    return dump_json({"jsonrpc": methods.JSONRPC_VERSION, "id": identity, "error": error})


def error_object(number: int, message: str, code: str | None = None, retry_after_ms: int = 0) -> dict[str, Any]:
    """Return an error object; `code` is the stable code for machines."""
    error: dict[str, Any] = {"code": number, "message": message}
    if code is not None:
        error["data"] = {"code": code, "retry_after_ms": retry_after_ms}
    return error


def error_of(error: Exception) -> dict[str, Any]:
    """Return the error object of an exception; whatever is not a typed error for a client is internal and keeps its words."""
    retry_after_ms = getattr(error, "retry_after_ms", 0)
    match error:
        case Rejected():
            return error_object(methods.REJECTED, error.message, error.code, retry_after_ms)
        case Malformed():
            return error_object(methods.INVALID_PARAMS, error.message, error.code)
        case Unavailable():
            return error_object(methods.UNAVAILABLE, error.message, error.code, retry_after_ms)
        case _:
            return error_object(methods.INTERNAL_ERROR, INTERNAL_SENTENCE)


def is_for_clients(error: Exception) -> bool:
    """Answer whether a client may be told what the error says."""
    return isinstance(error, MedchainError) and isinstance(error, Rejected | Malformed | Unavailable)


def status_of(error: Exception) -> int:
    """Return the HTTP status of a typed error on the routes that are not JSON-RPC."""
    match error:
        case Rejected():
            return 403
        case Malformed():
            return 400
        case Unavailable():
            return 503
        case _:
            return 500
