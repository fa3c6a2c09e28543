"""The proxy between a storm's crew and its servers: what it does to a connection, and what it counts of that."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.chaos.storm.link import Link
from tests.houses import until

SAID = b"are you there?"
# What is held back would be here long before, if it were not.
SILENCE_SECONDS = 0.3
SECONDS = 10.0


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says what it is told; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def answer(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        while said := connection.recv(1024):
            connection.sendall(said)


@pytest.fixture
def link(echo: int) -> Iterator[Link]:
    with Link.to(echo) as made:
        yield made


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", link.port), SECONDS)) as made:
        yield made


def asks(client: socket.socket) -> bytes:
    client.settimeout(SECONDS)
    client.sendall(SAID)
    return client.recv(1024)


def hears_nothing(client: socket.socket) -> bool:
    client.settimeout(SILENCE_SECONDS)
    try:
        client.recv(1024)
    except TimeoutError:
        return True
    finally:
        client.settimeout(SECONDS)
    return False


def test_what_is_said_comes_through_both_ways(client: socket.socket, link: Link) -> None:
    assert asks(client) == SAID
    assert link.order("look")["open"] == 1


def test_a_cut_resets_every_connection_and_others_can_be_had_at_once(client: socket.socket, link: Link) -> None:
    asks(client)
    assert link.order("cut")["cut"] == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1024)
    with closing(socket.create_connection(("127.0.0.1", link.port), SECONDS)) as other:
        assert asks(other) == SAID


def test_what_is_held_comes_through_once_the_link_is_healed_and_new_connections_too(
    client: socket.socket, link: Link
) -> None:
    asks(client)
    link.order("hold")
    client.sendall(SAID)
    assert hears_nothing(client)
    with closing(socket.create_connection(("127.0.0.1", link.port), SECONDS)) as other:
        other.sendall(SAID)
        assert hears_nothing(other)
        assert link.order("heal")["held"] > 0
        assert (client.recv(1024), other.recv(1024)) == (SAID, SAID)


def test_half_a_connection_says_nothing_until_the_link_is_healed_and_is_reset_then(
    client: socket.socket, link: Link
) -> None:
    asks(client)
    assert link.order("halve", share=1.0)["halved"] == 1
    client.sendall(SAID)
    assert hears_nothing(client)
    link.order("heal")
    with pytest.raises(ConnectionResetError):
        client.recv(1024)
    until(lambda: link.order("look")["open"] == 0)


def test_a_slow_link_brings_everything(client: socket.socket, link: Link) -> None:
    asks(client)
    link.order("slow", seconds=0.05)
    assert asks(client) == SAID
    assert link.order("heal")["slowed"] >= 2 * len(SAID)


def test_a_client_that_hangs_up_leaves_nothing_behind(client: socket.socket, link: Link) -> None:
    asks(client)
    client.close()
    until(lambda: link.order("look")["open"] == 0)
