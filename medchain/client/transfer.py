"""Sealed bytes to and from the vault of the own hospital's node, going on where they stopped. What travels here is ciphertext.

Uploads ask how much arrived and send the rest; downloads ask for the rest by range. Each attempt that moved nothing counts; a few of
them in a row end it. Roots are checked by whoever opens the stream and by the vault before it publishes. Knows no key.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final

import aiohttp

from medchain.client.node import NodeClient, raise_error, read_answer
from medchain.errors import Malformed, Rejected, Unavailable

Progress = Callable[[int], None]
"""Told the bytes that are done so far."""

PIECE_BYTES: Final = 1024 * 1024
IDLE_TIMEOUT_MS: Final = 60_000
"""A transfer in which nothing moves for so long is begun again where it stopped; verifying a large upload moves nothing for a while."""
FINISH_TIMEOUT_MS: Final = 600_000
"""Until the answer to an upload: the vault reads the whole blob once more before it publishes it."""
FRUITLESS_MAX: Final = 5
"""Attempts in a row that moved nothing."""
_INTERRUPTIONS: Final = (aiohttp.ClientError, TimeoutError, ConnectionError, Unavailable)
_RETRY_MS: Final = 200
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_COUNT: Final = re.compile(r"[0-9]{1,15}")


async def upload(client: NodeClient, root: bytes, path: Path, progress: Progress | None = None) -> None:
    """Send the sealed file at `path` to the vault; goes on where an earlier upload of this root stopped, also after a restart.

    Returns when the vault has verified the root. Raises Rejected or Malformed as the vault answers, Unavailable when nothing moves.
    """
    with path.open("rb") as source:
        await upload_from(client, root, source, path.stat().st_size, progress)


async def upload_from(client: NodeClient, root: bytes, source: BinaryIO, total: int, progress: Progress | None = None) -> None:
    """Send `total` bytes of an open file, which must not change meanwhile; else like `upload`."""
    done = -1
    fruitless = 0
    while True:
        try:
            received, is_complete = await _received(client, root)
            if progress is not None:
                progress(total if is_complete else min(received, total))
            if is_complete:
                return
            if received > done:
                done, fruitless = received, 0
            if received > total:
                raise Rejected("client.false-answer", "the vault claims more bytes of the upload than there are: do not use this node")
            if os.fstat(source.fileno()).st_size < total:
                raise Malformed("the sealed file became shorter while it was sent: seal it again")
            if await _send_rest(client, root, source, received, total, progress):
                return
        except _INTERRUPTIONS as error:
            fruitless += 1
            await _pause_or_give_up(client, fruitless, error)
        except Rejected as refused:
            if refused.code != "vault.offset":  # another attempt of ours still had bytes on the way: ask again
                raise
            fruitless += 1
            await _pause_or_give_up(client, fruitless, refused)


async def _received(client: NodeClient, root: bytes) -> tuple[int, bool]:
    """Return (bytes the vault has of this root, whether it is whole and verified)."""
    async with asyncio.timeout(IDLE_TIMEOUT_MS / 1000), client.session.head(_url(client, root), allow_redirects=False) as response:
        if response.status == 404:
            return 0, False
        if response.status != 200:
            raise Unavailable(f"the vault answered with status {response.status} when it was asked how much it has")
        offset = response.headers.get("Upload-Offset", "")
        if not _COUNT.fullmatch(offset):
            raise Malformed("the vault does not say how much it has: node and client are of different versions")
        return int(offset), response.headers.get("Upload-Complete") == "?1"


async def _send_rest(client: NodeClient, root: bytes, source: BinaryIO, first: int, total: int, progress: Progress | None) -> bool:
    """Send everything from byte `first` on; answers whether the vault has published it."""
    if first < total:
        headers = {"Content-Range": f"bytes {first}-{total - 1}/{total}", "Content-Length": str(total - first)}
    else:
        headers = {"Content-Range": f"bytes */{total}", "Content-Length": "0"}
    headers["Content-Type"] = "application/octet-stream"
    timeout = aiohttp.ClientTimeout(total=None, sock_read=FINISH_TIMEOUT_MS / 1000)
    body = _pieces(source, first, total, progress)
    async with client.session.put(_url(client, root), data=body, headers=headers, timeout=timeout, allow_redirects=False) as response:
        answer = await _json_of(response)
        if response.status >= 400:
            _raise_answer(response.status, answer)
        return bool(answer.get("is_complete")) or response.headers.get("Upload-Complete") == "?1"


async def _pieces(source: BinaryIO, first: int, total: int, progress: Progress | None) -> AsyncIterator[bytes]:
    """Yield the bytes of a file from `first` on; aiohttp asks for the next piece when the one before is on its way.

    Read by position: a piece of an attempt that was given up may still be on its way from the disk when the next one begins.
    """
    source.flush()
    sent = first
    while sent < total:
        piece = await asyncio.to_thread(os.pread, source.fileno(), min(PIECE_BYTES, total - sent), sent)
        if not piece:
            raise ConnectionAbortedError("the sealed file became shorter")  # the next attempt says so; this one is ended by aiohttp
        yield piece
        sent += len(piece)
        if progress is not None:
            progress(sent)


async def download(client: NodeClient, root: bytes, path: Path, bytes_max: int, progress: Progress | None = None) -> int:
    """Bring a sealed blob to `path`, going on after the bytes that are there already; returns its length.

    What arrives is not verified here: open it with `crypto.streams.open_stream`, or compare `stream_root`. Raises Rejected as the vault
    answers, Malformed when there are more than `bytes_max` bytes, Unavailable when nothing moves.
    """
    with path.open("a+b") as sink:
        return await download_into(client, root, sink, bytes_max, progress)


async def download_into(client: NodeClient, root: bytes, sink: BinaryIO, bytes_max: int, progress: Progress | None = None) -> int:
    """Append the rest of a blob to an open file; else like `download`."""
    fruitless = 0
    while True:
        before = sink.seek(0, 2)
        try:
            total = await _fetch_rest(client, root, sink, before, bytes_max, progress)
        except _INTERRUPTIONS as error:
            fruitless = 1 if sink.tell() > before else fruitless + 1
            await _pause_or_give_up(client, fruitless, error)
            continue
        if sink.tell() == total:
            sink.flush()
            return total
        fruitless = 1 if sink.tell() > before else fruitless + 1
        await _pause_or_give_up(client, fruitless, Unavailable("the vault ended its answer before the blob's end"))


async def _fetch_rest(client: NodeClient, root: bytes, sink: BinaryIO, first: int, bytes_max: int, progress: Progress | None) -> int:
    """Append what follows byte `first`, as far as it comes; returns the blob's length."""
    headers = {"Range": f"bytes={first}-", "Accept-Encoding": "identity"}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=IDLE_TIMEOUT_MS / 1000)
    async with client.session.get(_url(client, root), headers=headers, timeout=timeout, allow_redirects=False) as response:
        if response.status == 416:
            return _end_of(response, first)
        if response.status >= 400:
            _raise_answer(response.status, await _json_of(response))
        total = _total_of(response, first)
        if total > bytes_max:
            raise Malformed(f"the blob has {total} bytes, but the record's has at most {bytes_max}: do not use this node")
        done = first
        async for piece in response.content.iter_any():
            done += len(piece)
            if done > total:
                raise Malformed("the vault sends more bytes than it announced: do not use this node")
            sink.write(piece)
            if progress is not None:
                progress(done)
        return total


def _total_of(response: aiohttp.ClientResponse, first: int) -> int:
    """Return the blob's length as the answer to a range tells it. Raises Malformed when it is an answer to something else."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is not None and int(match[1]) == first and int(match[2]) == int(match[3]) - 1:
            return int(match[3])
    elif response.status == 200 and first == 0 and response.content_length is not None:
        return response.content_length
    raise Malformed("the vault's answer is not the range that was asked for: node and client are of different versions")


def _end_of(response: aiohttp.ClientResponse, first: int) -> int:
    """Nothing follows byte `first`: right if the blob ends there."""
    if response.headers.get("Content-Range") == f"bytes */{first}":
        return first
    raise Malformed("more bytes are here than the vault has of this blob: begin the download anew")


async def _json_of(response: aiohttp.ClientResponse) -> dict[str, object]:
    try:
        value = json.loads(await read_answer(response))
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _raise_answer(status: int, answer: dict[str, object]) -> None:
    if "error" in answer:
        raise_error(answer["error"])
    raise Unavailable(f"the vault answered with status {status} and gave no reason")


async def _pause_or_give_up(client: NodeClient, fruitless: int, error: Exception) -> None:
    """Wait a little longer each time; raise when too many attempts in a row moved nothing."""
    if fruitless >= FRUITLESS_MAX:
        if isinstance(error, Unavailable | Rejected):
            raise error
        raise client.unreachable() from None
    hint_ms = error.retry_after_ms if isinstance(error, Unavailable) else 0
    await asyncio.sleep(min(5_000, max(hint_ms, _RETRY_MS * 2 ** max(0, fruitless - 1))) / 1000)


def _url(client: NodeClient, root: bytes) -> str:
    return f"{client.url}/blobs/{root.hex()}"
