"""Codes with which the client listener says no, before any method is asked."""

from __future__ import annotations

from typing import Final

REFUSALS: Final[dict[str, str]] = {
    "rpc.not-loopback": "Without client keys the listener opens on a loopback address only.",
    "rpc.port-taken": "Another process listens on the port.",
    "rpc.cannot-listen": "The operating system does not let this process listen there.",
    "rpc.web-page": "The request comes from a web page; pages may not speak to a node.",
    "rpc.host": "The request names a host that is not this listener.",
    "rpc.media-type": "The body must be sent as application/json, not compressed.",
    "rpc.too-large": "The body is larger than the listener reads.",
    "rpc.too-slow": "The body did not arrive in time.",
}
