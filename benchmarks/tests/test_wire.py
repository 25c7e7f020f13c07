"""Counting what a process asks of its broker."""

import socket
import sys

import pytest

from channels_bench.wire import requests_sent, sent_between


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters are Linux's")
def test_each_request_on_an_open_connection_counts() -> None:
    """Three small writes that are read one by one are three requests, whoever made the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        other, _ = server.accept()
        with other:
            before = requests_sent()
            for _ in range(3):
                client.sendall(b"PING")
                assert other.recv(4) == b"PING"
            after = requests_sent()
    assert before is not None
    assert after is not None
    assert sent_between(before, after) == 3


def test_new_connections_count_and_closed_ones_do_not() -> None:
    """What a connection had sent before it closed cannot make the sum smaller."""
    assert sent_between({1: 10, 2: 500}, {1: 12, 3: 4}) == 6
