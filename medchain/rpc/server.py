"""The client listener: JSON-RPC 2.0 on `POST /`, `/healthz`, `/readyz` and the routes it is handed, on loopback.

Every body is bounded before it is read, every call before it is made. Typed errors become answers with their number and code; what is our
own fault is logged by its type only, and the client is told nothing but that. This module knows no method's meaning.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.rpc import answers
from medchain.rpc.guard import Allowance, Door, check_caller, is_loopback
from medchain.rpc.limits import RpcLimits
from medchain.rpc.requests import Request, id_of, read_json, read_request
from medchain.telemetry import PROCESS_COUNTERS, Counters, log_event
from medchain.wire import methods
from medchain.wire.methods import METHODS, check_params

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""(method name, checked parameters) → result; raises the families of errors.py."""
Tap = Callable[[str, bytes], None]
"""Told ("in" or "out", the whole body) of each JSON-RPC exchange: for tests of what leaves and enters a node."""

_BACKLOG: Final = 128
_WAITING_METHODS: Final = frozenset(("tx.wait",))
_BUSY_RETRY_MS: Final = 500
_STOPPING_RETRY_MS: Final = 5_000


class RpcServer:
    """One listener. `start` and `stop` once each."""

    def __init__(
        self,
        *,
        listen: tuple[str, int],
        call: Call,
        routes: Sequence[web.AbstractRouteDef] = (),
        health: Callable[[], Mapping[str, bool]],
        tap: Tap | None = None,
        limits: RpcLimits | None = None,
        counters: Counters = PROCESS_COUNTERS,
        broken: Callable[[InvariantBroken], None] | None = None,
    ) -> None:
        """`listen` is (loopback host, port), port 0 for any free one; `health` returns check → passed, for /readyz.

        `broken` is told when a call found our own bug: the node has to stop then, and it is the node that stops itself. Raises Rejected
        `rpc.not-loopback`.
        """
        host, port = listen
        if not is_loopback(host):
            raise Rejected("rpc.not-loopback", f"clients are served on a loopback address without keys: set 127.0.0.1 instead of {host}")
        self._listen = ("127.0.0.1" if host == "localhost" else host.strip("[]"), port)
        self._call = call
        self._routes = tuple(routes)
        self._health = health
        self._tap = tap
        self._limits = limits or RpcLimits()
        self._counters = counters
        self._broken = broken
        self._allowance = Allowance(self._limits.calls_per_second, self._limits.calls_burst)
        self._door = Door(self._limits.connections_max, self._limits.head_timeout_ms / 1000)
        self._calls: set[asyncio.Task[Any]] = set()
        self._waiting = 0
        self._is_stopping = False
        self._port = port
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on, once started."""
        return (self._listen[0], self._port)

    @property
    def url(self) -> str:
        """The address for clients."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Open the listener. Raises Rejected `rpc.port-taken` or `rpc.cannot-listen`; then nothing is open."""
        if self._runner is not None:
            raise InvariantBroken("a client listener is started once")
        listener = _bind(self._listen)
        app = web.Application(middlewares=[self._middleware], client_max_size=self._limits.body_bytes_max)
        app.router.add_post("/", self._handle_calls)
        app.router.add_get("/healthz", self._handle_alive)
        app.router.add_get("/readyz", self._handle_ready)
        app.router.add_routes(self._routes)
        app.on_response_prepare.append(_name_server)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            handle_signals=False,
            lingering_time=self._limits.linger_ms / 1000,
            keepalive_timeout=self._limits.keepalive_ms / 1000,
            shutdown_timeout=self._limits.stop_grace_ms / 1000,
        )
        await self._runner.setup()
        make_protocol = self._runner.server
        if make_protocol is None:
            raise InvariantBroken("aiohttp made no server")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._door.protocol(make_protocol), sock=listener, backlog=_BACKLOG)
        self._port = listener.getsockname()[1]
        log_event("rpc.listening", port=self._port)

    async def stop(self) -> None:
        """Close the listener, give calls a moment to end, then answer those left that the node is stopping. May be called twice."""
        server, self._server = self._server, None
        runner = self._runner
        if server is None or runner is None:
            return
        self._is_stopping = True
        server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._limits.stop_grace_ms / 1000)
            for task in self._calls:
                task.cancel()
        await runner.cleanup()
        log_event("rpc.stopped", port=self._port)

    # ---- HTTP ----------------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Guard every route, and turn every error into an answer."""
        self._door.heard(request.protocol)
        try:
            check_caller(request, self._port)
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _error_response(error.status, answers.error_object(methods.INVALID_REQUEST, f"HTTP {error.status}: {error.reason}"))
        except ConnectionError:
            return _error_response(400, answers.error_object(methods.INVALID_REQUEST, "the connection ended within the request"))
        except Exception as error:
            if not answers.is_for_clients(error):
                self._note_failure(request.method, error)
            elif isinstance(error, Rejected):
                log_event("rpc.refused", code=error.code, method=request.method)
            status = _STATUS_OF_CODE.get(getattr(error, "code", ""), answers.status_of(error))
            return _error_response(status, answers.error_of(error))

    async def _handle_alive(self, _: web.Request) -> web.Response:
        return _json_response(200, {"alive": True})

    async def _handle_ready(self, _: web.Request) -> web.Response:
        checks = dict(self._health())
        failed = [name for name, passed in checks.items() if not passed]
        return _json_response(503 if failed else 200, {"ready": not failed, "failed": failed, "checks": checks})

    async def _handle_calls(self, request: web.Request) -> web.Response:
        """Answer one JSON-RPC body."""
        if request.content_type != "application/json" or "Content-Encoding" in request.headers:
            raise Rejected("rpc.media-type", "send the body as application/json, not compressed")
        body = await self._read_body(request)
        if self._tap is not None:
            self._tap("in", body)
        answer = await self._answer(body)
        if self._tap is not None:
            self._tap("out", answer)
        return web.Response(body=answer, content_type="application/json")

    async def _read_body(self, request: web.Request) -> bytes:
        limit = self._limits.body_bytes_max
        too_large = Rejected("rpc.too-large", f"the body may have {limit} bytes: send fewer calls at once")
        if (request.content_length or 0) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._limits.body_timeout_ms / 1000):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        except TimeoutError:
            raise Rejected("rpc.too-slow", f"send the body within {self._limits.body_timeout_ms // 1000} seconds") from None

    # ---- JSON-RPC ------------------------------------------------------------------------------------------------------------

    async def _answer(self, body: bytes) -> bytes:
        """Return the answer to a body, whatever it holds."""
        try:
            value = read_json(body, depth_max=self._limits.depth_max, values_max=self._limits.values_max)
        except Malformed as error:
            return answers.error_answer(None, answers.error_object(methods.PARSE_ERROR, error.message))
        if type(value) is not list:
            return await self._answer_one(value)
        if not 1 <= len(value) <= self._limits.batch_max:
            sentence = f"a batch holds 1 to {self._limits.batch_max} calls"
            return answers.error_answer(None, answers.error_object(methods.INVALID_REQUEST, sentence))
        return b"[" + b",".join(await asyncio.gather(*[self._answer_one(item) for item in value])) + b"]"

    async def _answer_one(self, value: Any) -> bytes:
        """Return the answer to one call; never raises for what a client or a method did."""
        identity = id_of(value)
        try:
            request = read_request(value)
        except Malformed as error:
            self._count("", methods.INVALID_REQUEST)
            return answers.error_answer(identity, answers.error_object(methods.INVALID_REQUEST, error.message))
        if request.method not in METHODS:
            self._count("", methods.METHOD_NOT_FOUND)
            sentence = "there is no method of this name: see the table of methods"
            return answers.error_answer(identity, answers.error_object(methods.METHOD_NOT_FOUND, sentence))
        try:
            self._take_allowance()
            answer = answers.result_answer(request.id, await self._run(request))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failure = answers.error_of(error)
            self._count(request.method, failure["code"])
            if not answers.is_for_clients(error):
                self._note_failure(request.method, error)
            return answers.error_answer(request.id, failure)
        self._count(request.method, 0)
        return answer

    async def _run(self, request: Request) -> Any:
        """Make the call, if there is room for it."""
        params = check_params(request.method, request.params)
        if self._is_stopping:
            raise _stopping()
        if len(self._calls) >= self._limits.in_flight_max:
            raise Unavailable("too many calls are being answered: come again in a moment", _BUSY_RETRY_MS)
        is_waiting = request.method in _WAITING_METHODS
        if is_waiting and self._waiting >= min(self._limits.waiting_max, self._limits.in_flight_max * 3 // 4):
            raise Unavailable("too many calls wait for decisions: ask with tx.status meanwhile", _BUSY_RETRY_MS)
        task = asyncio.ensure_future(self._call(request.method, params))
        self._calls.add(task)
        self._waiting += is_waiting
        try:
            return await task
        except asyncio.CancelledError:
            if self._is_stopping and task.cancelled():
                raise _stopping() from None
            raise
        finally:
            self._calls.discard(task)
            self._waiting -= is_waiting

    def _take_allowance(self) -> None:
        wait_ms = self._allowance.take(asyncio.get_running_loop().time())
        if wait_ms:
            raise Unavailable("more calls than this listener takes: come again a little later", wait_ms)

    def _note_failure(self, method: str, error: Exception) -> None:
        """Log our own fault by its type only; what it says may quote what somebody sent."""
        log_event("rpc.failed", level="error", method=method, kind=type(error).__name__)
        if isinstance(error, InvariantBroken) and self._broken is not None:
            self._broken(error)

    def _count(self, method: str, number: int) -> None:
        self._counters.increment("rpc_calls", label=method or "unknown")
        if number:
            self._counters.increment("rpc_errors", label=str(number))


_STATUS_OF_CODE: Final = {"rpc.media-type": 415, "rpc.too-large": 413, "rpc.too-slow": 408}


def _stopping() -> Unavailable:
    return Unavailable("the node is stopping: ask another node, or this one when it runs again", _STOPPING_RETRY_MS)


def _bind(listen: tuple[str, int]) -> socket.socket:
    """Return a bound, listening socket. Raises Rejected."""
    host, port = listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Rejected(
                "rpc.port-taken", f"port {port} on {host} is taken: stop the program that listens there or set another port for clients"
            ) from None
        raise Rejected("rpc.cannot-listen", f"cannot listen on port {port} of {host}: choose another port or address for clients") from None
    return listener


def _json_response(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=answers.dump_json(value), content_type="application/json")


def _error_response(status: int, error: dict[str, Any]) -> web.Response:
    """Answer an error outside JSON-RPC calls in the same shape; a connection whose body was not read to its end is closed."""
    response = web.Response(status=status, body=answers.error_answer(None, error), content_type="application/json")
    retry_after_ms = error.get("data", {}).get("retry_after_ms", 0)
    if retry_after_ms:
        response.headers["Retry-After"] = str(-(-retry_after_ms // 1000))
    if status in (403, 408, 413, 415):
        response.force_close()
    return response


async def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    """Say nothing about versions, and let no browser keep or guess anything."""
    response.headers["Server"] = "medchain"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
