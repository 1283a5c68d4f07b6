"""The table of methods as a page for people: METHODS.md is what this module makes of wire/methods.py, and a test keeps it so.

`python -m medchain.rpc.documentation` prints the page.
"""

from __future__ import annotations

import sys
from typing import Final

from medchain.rpc.refusals import REFUSALS
from medchain.wire import methods
from medchain.wire.methods import KINDS, METHODS, Method, Param

_INTRODUCTION: Final = """# RPC methods

Made from `medchain/wire/methods.py` by `python -m medchain.rpc.documentation`; change the table, not this page.

JSON-RPC 2.0 over `POST /` on the node's client listener, `Content-Type: application/json`, one call or a batch. Parameters go by name;
bytes are lower-case hexadecimal text both ways. A call without an id is refused: nothing is done without saying what became of it. The
listener is on a loopback address and refuses web pages (any request with `Origin`, or that names another host).

Beside it: `GET /healthz` (the loop is alive), `GET /readyz` (failed checks by name), and the vault's blobs: `PUT /blobs/{root}` with
`Content-Range: bytes first-last/total`, `HEAD` (how much is there: `Upload-Offset`, `Upload-Complete`), `GET` with `Range`.
"""

_SERVERS: Final = {
    methods.ENGINE: "answered by the engine, of one height, changing nothing",
    methods.DESK: "answered by the node's desk",
    methods.CUSTODIAN: "answered by the hospital's custodian",
}


def methods_page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION, _errors()]
    group = ""
    for method in METHODS.values():
        name = method.name.partition(".")[0]
        if name != group:
            group = name
            parts.append(f"## {group}\n")
        parts.append(_method(method))
    return "\n".join(parts)


def _errors() -> str:
    numbers = [
        (methods.PARSE_ERROR, "the body is no JSON within the bounds"),
        (methods.INVALID_REQUEST, "it is no call"),
        (methods.METHOD_NOT_FOUND, "there is no such method"),
        (methods.INVALID_PARAMS, "the parameters, or the bytes in them, are malformed"),
        (methods.REJECTED, "a rule said no: `data.code` is the stable code"),
        (methods.UNAVAILABLE, "not now: `data.retry_after_ms` is a hint, 0 = unknown"),
        (methods.INTERNAL_ERROR, "the node failed; its log says more"),
    ]
    rows = [f"| {number} | {meaning} |" for number, meaning in numbers]
    codes = [f"| `{code}` | {meaning} |" for code, meaning in REFUSALS.items()]
    return "\n".join(
        [
            "## Errors\n", "| number | meaning |", "|---|---|", *rows, "",
            "The listener's own codes, before any method is asked:\n", "| code | meaning |", "|---|---|", *codes, "",
        ]
    )  # fmt: skip


def _method(method: Method) -> str:
    lines = [f"### {method.name}\n", f"{method.doc} ({_SERVERS[method.served_by]})\n"]
    lines += [_param(param) for param in method.params]
    if method.params:
        lines.append("")
    lines.append(f"Result: `{method.result_doc}`\n")
    return "\n".join(lines)


def _param(param: Param) -> str:
    left_out = "" if param.is_required else f"; optional, default {param.default if param.default is not None else 'none'}"
    return f"- `{param.name}` ({KINDS[param.kind]}{left_out}): {param.doc}"


if __name__ == "__main__":
    sys.stdout.write(methods_page())
