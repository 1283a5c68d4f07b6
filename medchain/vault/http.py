"""Blobs over HTTP: ranges out, resumable uploads in; and how our errors travel in a response.

    GET  /blobs/{root}   `Range: bytes=a-b` (one range) or the whole
    HEAD /blobs/{root}   `Upload-Offset`: how many bytes are here; `Upload-Complete`: ?1 when the blob is whole and verified
    PUT  /blobs/{root}   `Content-Range: bytes a-b/total`, a = the bytes received so far; the last range verifies and publishes.
                         `Content-Range: bytes */total` with no body asks for that alone.

Who may read or write is decided by functions that the caller gives; this module knows no rule, no permit and no chain. A range answers 206
(RFC 9110, section 14); several ranges in one request are not offered and the whole is sent, as the RFC allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from aiohttp import web

from medchain.errors import InvariantBroken, Malformed, MedchainError, Misbehaviour, Rejected, Unavailable
from medchain.vault.blobs import BLOB_BYTES_MAX, READ_BYTES, BlobStore

Rule = Callable[[web.Request, bytes], Awaitable[None]]
"""Given the request and the root: returns when it is allowed, raises Rejected (or Unavailable) when not."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ERROR_BYTES_MAX: Final = 16 * 1024
"""Longest error answer that is read: a code and a sentence."""
CODE_CHARACTERS_MAX: Final = 64
MESSAGE_CHARACTERS_MAX: Final = 500
_ROOT: Final = re.compile(r"[0-9a-f]{64}\Z")
_RANGE: Final = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})\Z")
_CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)/([0-9]{1,15})\Z")
_CODE: Final = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\Z")
_STATUS: Final = {"vault.blob-missing": 404, "vault.offset": 409, "vault.too-large": 413, "vault.full": 507, "vault.disk-low": 507}


def blob_routes(store: BlobStore, may_read: Rule, may_write: Rule | None = None) -> list[web.RouteDef]:
    """Return the routes of a store. Without `may_write` nothing can be uploaded, and HEAD asks `may_read` as GET does.

    With it, HEAD is free: whoever uploads must learn how far it came, and learns nothing but a length.
    """

    async def head(request: web.Request) -> web.StreamResponse:
        root = _root_of(request)
        if may_write is None:
            await may_read(request, root)
            store.size(root)
        else:
            await _finish_what_is_whole(store, root)
        is_whole = store.has(root)
        headers = {"Upload-Offset": str(store.received(root)), "Upload-Complete": "?1" if is_whole else "?0", "Accept-Ranges": "bytes"}
        if is_whole:
            headers["Content-Length"] = str(store.size(root))
        return web.Response(headers=headers)

    async def get(request: web.Request) -> web.StreamResponse:
        root = _root_of(request)
        await may_read(request, root)
        return await _send(request, store, root)

    async def put(request: web.Request) -> web.StreamResponse:
        root = _root_of(request)
        if may_write is None:
            raise InvariantBroken("an upload reached a listener that takes none")
        await may_write(request, root)
        return await _take(request, store, root)

    routes = [web.get("/blobs/{root}", typed(get), allow_head=False), web.head("/blobs/{root}", typed(head))]
    return routes if may_write is None else [*routes, web.put("/blobs/{root}", typed(put))]


def typed(handler: Handler) -> Handler:
    """Return the handler with its typed errors answered as JSON; a broken invariant is passed on, for it must end the process."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Malformed, Rejected, Misbehaviour, Unavailable) as error:
            return error_response(error)

    return answer


def error_response(error: MedchainError) -> web.Response:
    """Return the answer that carries an error: {"error": {code, message, retry_after_ms}}."""
    code = getattr(error, "code", "unavailable")
    retry_after_ms = error.retry_after_ms if isinstance(error, Unavailable) else 0
    status = _STATUS.get(code) or (503 if isinstance(error, Unavailable) else 403 if isinstance(error, Rejected) else 400)
    body = {"error": {"code": code, "message": getattr(error, "message", str(error)), "retry_after_ms": retry_after_ms}}
    headers = {"Retry-After": str(-(-retry_after_ms // 1000))} if retry_after_ms else {}
    # A body that was not read would be taken for the next request on the same connection.
    response = web.json_response(body, status=status, headers=headers)
    response.force_close()
    return response


def read_error(status: int, body: bytes) -> MedchainError:
    """Return the error that an answer of `error_response` carries; whatever else the other side says becomes Unavailable.

    The code and the sentence come from another process: they are bounded, and only printable text is kept.
    """
    try:
        content = json.loads(body[:ERROR_BYTES_MAX])["error"]
        code, message, retry_after_ms = content["code"], content["message"], content.get("retry_after_ms", 0)
        is_readable = isinstance(code, str) and isinstance(message, str) and len(code) <= CODE_CHARACTERS_MAX and _CODE.match(code)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_readable = None
    if not is_readable:
        return Unavailable(f"the other hospital answered with status {status} and no reason")
    sentence = "".join(character for character in message[:MESSAGE_CHARACTERS_MAX] if character.isprintable())
    if status == 503:
        hint = retry_after_ms if type(retry_after_ms) is int and 0 <= retry_after_ms <= 3_600_000 else 0
        later = Unavailable(sentence, hint)
        later.code = code
        return later
    return Malformed(sentence) if code == Malformed.code else Rejected(code, sentence)


def read_content_range(value: str | None) -> tuple[int, int, int]:
    """Return (first, last, total) of a Content-Range header; (0, -1, total) for the form that has no range. Raises Malformed."""
    found = _CONTENT_RANGE.match(value or "")
    if found is None:
        raise Malformed("the request needs a header of the form `Content-Range: bytes first-last/total`")
    total = int(found[3])
    if found[1] is None:
        return 0, -1, total
    first, last = int(found[1]), int(found[2])
    if not first <= last < total:
        raise Malformed("the Content-Range does not lie within its total")
    return first, last, total


def _root_of(request: web.Request) -> bytes:
    text = request.match_info["root"]
    if not _ROOT.match(text):
        raise Malformed("a blob is named by its root, 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


async def _finish_what_is_whole(store: BlobStore, root: bytes) -> None:
    """An upload whose last bytes came just before a stop is verified now; a damaged one is gone, and its offset 0 says so."""
    try:
        await store.finish_if_whole(root)
    except (Malformed, Unavailable):
        return


async def _send(request: web.Request, store: BlobStore, root: bytes) -> web.StreamResponse:
    size = store.size(root)
    wanted = _wanted(request.headers.get("Range"), size)
    if wanted is None:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    first, last, is_part = wanted
    response = web.StreamResponse(status=206 if is_part else 200)
    response.content_type = "application/octet-stream"
    response.content_length = last + 1 - first
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["ETag"] = f'"{root.hex()}"'
    if is_part:
        response.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    await response.prepare(request)
    async with aclosing(store.read_range(root, first, last)) as pieces:
        async for piece in pieces:
            await response.write(piece)  # waits while the reader is slow: memory stays at one piece
    await response.write_eof()
    return response


def _wanted(header: str | None, size: int) -> tuple[int, int, bool] | None:
    """Return (first, last, whether only a part) of a Range header, None when there are no such bytes (RFC 9110, section 14.1.2)."""
    found = _RANGE.match(header.strip()) if header is not None else None
    if found is None or found[1] == found[2] == "":
        return 0, size - 1, False
    if found[1] == "":
        count = int(found[2])
        return (max(0, size - count), size - 1, True) if count and size else None
    first = int(found[1])
    last = min(size - 1, int(found[2])) if found[2] else size - 1
    if found[2] and int(found[2]) < first:
        return 0, size - 1, False  # not a valid range: ignored, as the RFC says
    return (first, last, True) if first < size else None


async def _take(request: web.Request, store: BlobStore, root: bytes) -> web.StreamResponse:
    first, last, total = read_content_range(request.headers.get("Content-Range"))
    if not 0 < total <= BLOB_BYTES_MAX:
        raise Rejected("vault.too-large", f"a sealed blob has 1 to {BLOB_BYTES_MAX} bytes: split the content")
    if last >= first:
        await store.write_range(root, first, _body(request, last + 1 - first), total=total)
    if not store.has(root) and store.received(root) >= total:
        await store.finish(root)
    is_whole = store.has(root)
    body = {"root": root.hex(), "received_bytes": store.received(root), "is_complete": is_whole}
    headers = {"Upload-Offset": str(store.received(root)), "Upload-Complete": "?1" if is_whole else "?0"}
    response = web.json_response(body, status=201 if is_whole else 200, headers=headers)
    if not request.content.at_eof():
        response.force_close()  # the rest of a body for a blob that is here already
    return response


async def _body(request: web.Request, length: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises Malformed when it is longer or shorter than its range says; what arrived before is kept."""
    remaining = length
    async for chunk in request.content.iter_chunked(READ_BYTES):
        if len(chunk) > remaining:
            raise Malformed("the body is longer than the range it is for")
        remaining -= len(chunk)
        yield chunk
    if remaining:
        raise Malformed("the body is shorter than the range it is for: ask how much was received and send the rest")
