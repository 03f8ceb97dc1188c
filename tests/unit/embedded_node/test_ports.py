"""The port of a node: drawn once for its folder, kept, and nobody else's."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.errors import expect_error
from support.messages import forward_messages

from stair_es.embedded_node.ports import check_port_free, ensure_port

PORTS = range(10_000, 32_768)


@pytest.fixture(autouse=True)
def logged_messages() -> Iterator[list[str]]:
    messages: list[str] = []
    with forward_messages(messages.append):
        yield messages


def test_port_is_drawn_once_and_kept(tmp_path: Path, logged_messages: list[str]) -> None:
    first = ensure_port(tmp_path / "port")
    assert first in PORTS
    assert (tmp_path / "port").read_text() == f"{first}\n"
    assert [ensure_port(tmp_path / "port") for _ in range(3)] == [first] * 3
    assert logged_messages == []


def test_ports_of_folders_cannot_be_guessed(tmp_path: Path) -> None:
    """Twenty are all different in 99 of 100 runs, and never fewer than fifteen; those of before were 19200 and the next ones."""
    ports = {ensure_port(tmp_path / f"{number}") for number in range(20)}
    assert len(ports) >= 15
    assert max(ports) - min(ports) > 5_000


@pytest.mark.parametrize("text", ["", "http", "9200", "65536", "-1", "1e4"])
def test_a_file_without_a_valid_port_is_rewritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "port").write_text(text)
    port = ensure_port(tmp_path / "port")
    assert port in PORTS
    assert (tmp_path / "port").read_text() == f"{port}\n"


def test_used_ports_are_replaced_permanently(tmp_path: Path, logged_messages: list[str]) -> None:
    before = ensure_port(tmp_path / "port")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", before))
        holder.listen()
        after = ensure_port(tmp_path / "port")
    assert after != before
    assert [re.findall(r"port (\d+)", message) for message in logged_messages] == [[str(before), str(after)]]
    assert ensure_port(tmp_path / "port") == after


def test_a_port_in_use_is_an_error_with_a_remedy() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with expect_error("port-in-use") as caught:
            check_port_free(port)
    assert str(port) in caught.value.message
    assert "--port" in caught.value.remedy
    for free in (port, 0, None):
        check_port_free(free)
