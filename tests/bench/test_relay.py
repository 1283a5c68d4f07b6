"""The relay keeps the contract of a line while it carries, and breaks it in exactly the way it was told to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from medchain.bench.relay import Relays

PATIENCE_S = 10.0


class Listener:
    """A hospital's listener that sends back what it hears."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self.socket.accept()
                threading.Thread(target=self._echo, args=(end,), daemon=True).start()

    @staticmethod
    def _echo(end: socket.socket) -> None:
        with end, contextlib.suppress(OSError):
            while chunk := end.recv(65_536):
                end.sendall(chunk)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # a thread waits in accept, which keeps the port listening past a mere close
        self.socket.close()


@pytest.fixture
def listeners():
    made = {name: Listener() for name in ("a", "b", "c")}
    yield made
    for listener in made.values():
        listener.close()


@pytest.fixture
def relays(listeners):
    with Relays({name: listener.address for name, listener in listeners.items()}) as lines:
        yield lines


def dial(address) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE_S)


def hear(end: socket.socket, size: int) -> bytes:
    heard = b""
    while len(heard) < size and (chunk := end.recv(size - len(heard))):
        heard += chunk
    return heard


def says_nothing(end: socket.socket) -> bool:
    end.settimeout(0.2)
    try:
        return end.recv(1) is None
    except TimeoutError:
        return True
    finally:
        end.settimeout(PATIENCE_S)


# ---- the contract of a line: a direct one and one through a relay keep it alike ----------------------------------------------------


@pytest.fixture(params=["direct", "through a relay"])
def line(request, listeners, relays):
    return listeners["b"].address if request.param == "direct" else relays.address(("a", "b"))


def test_bytes_arrive_unchanged_in_order_and_all(line):
    content = bytes(range(256)) * 8_192  # 2 MiB: many chunks, more than any buffer on the way
    with dial(line) as end:
        sender = threading.Thread(target=end.sendall, args=(content,))
        sender.start()
        assert hear(end, len(content)) == content
        sender.join(PATIENCE_S)


def test_end_of_one_side_reaches_the_other_after_its_last_byte(line):
    with dial(line) as end:
        end.sendall(b"last words")
        end.shutdown(socket.SHUT_WR)
        assert hear(end, 100) == b"last words"
        assert end.recv(1) == b""


def test_connections_do_not_mix(line):
    with dial(line) as one, dial(line) as other:
        one.sendall(b"one")
        other.sendall(b"other")
        assert (hear(other, 5), hear(one, 3)) == (b"other", b"one")


# ---- what can be done to a relay ---------------------------------------------------------------------------------------------------


def test_cut_ends_connections_and_carries_new_ones(relays):
    address = relays.address(("a", "b"))
    with dial(address) as end:
        end.sendall(b"x")
        assert hear(end, 1) == b"x"
        relays.cut([("a", "b")])
        with contextlib.suppress(ConnectionResetError):
            assert end.recv(1) == b""
    with dial(address) as end:
        end.sendall(b"y")
        assert hear(end, 1) == b"y"


def test_refused_way_ends_connections_and_refuses_new_ones_until_it_is_healed_on_the_same_port(relays):
    address = relays.address(("a", "b"))
    with dial(address) as end:
        end.sendall(b"x")
        assert hear(end, 1) == b"x"
        relays.refuse([("a", "b")])
        with contextlib.suppress(ConnectionResetError):
            assert end.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        dial(address)
    with dial(relays.address(("b", "a"))) as end:  # the other way is another line
        end.sendall(b"z")
        assert hear(end, 1) == b"z"
    relays.heal()
    assert relays.address(("a", "b")) == address
    with dial(address) as end:
        end.sendall(b"y")
        assert hear(end, 1) == b"y"


def test_held_bytes_wait_and_come_through_in_order_when_it_is_healed(relays):
    with dial(relays.address(("a", "b"))) as end:
        relays.hold([("a", "b")])
        end.sendall(b"first ")
        assert says_nothing(end)
        with dial(relays.address(("a", "b"))) as later:  # taken, and carries nothing
            later.sendall(b"hello")
            assert says_nothing(later)
            end.sendall(b"second")
            relays.heal()
            assert hear(end, 12) == b"first second"
            assert hear(later, 5) == b"hello"


def test_one_way_hold_stops_one_direction_whoever_dialled(relays):
    """b hears nothing of a: not on the connection a dialled, nor on the one b dialled."""
    with dial(relays.address(("a", "b"))) as dialled_by_a, dial(relays.address(("b", "a"))) as dialled_by_b:
        relays.hold([("a", "b")])
        dialled_by_a.sendall(b"x")
        assert says_nothing(dialled_by_a), "the echo proves that b heard it"
        dialled_by_b.sendall(b"y")
        assert says_nothing(dialled_by_b), "a heard it, but its echo must not come back to b"
        relays.heal()
        assert (hear(dialled_by_a, 1), hear(dialled_by_b, 1)) == (b"x", b"y")


def test_delayed_bytes_come_late_in_order_and_not_one_delay_after_the_other(relays):
    relays.delay([("a", "b")], 200)
    with dial(relays.address(("a", "b"))) as end:
        began = time.monotonic()
        for _ in range(10):
            end.sendall(b"0123456789")
        assert hear(end, 100) == b"0123456789" * 10
        took = time.monotonic() - began
    assert 0.2 <= took < 2.0


def test_listener_that_is_down_shows_as_an_ended_connection(relays, listeners):
    listeners["b"].close()
    with dial(relays.address(("a", "b"))) as end:
        with contextlib.suppress(ConnectionResetError):
            assert end.recv(1) == b""


def test_ways_between_sides_go_both_ways_and_join_no_two_of_a_side(relays):
    assert len(relays.ways()) == 6
    assert set(relays.between(["a"])) == {("a", "b"), ("a", "c"), ("b", "a"), ("c", "a")}
    assert set(relays.between(["a"], ["b"])) == {("a", "b"), ("b", "a")}


def test_setting_names_every_other_hospital(relays):
    rows = dict(row.split(" = ") for row in relays.dialled_by("a").split(", "))
    assert {name: tuple(address.split(":")) for name, address in rows.items()} == {
        name: ("127.0.0.1", str(relays.address(("a", name))[1])) for name in ("b", "c")
    }
