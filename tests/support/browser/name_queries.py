"""Run a command where our own name server is the only one, and print each name that is looked up.

    python tests/support/browser/name_queries.py COMMAND ...

The command runs in namespaces of its own (Linux, with `unshare` of util-linux): nothing but the loopback interface is there, so
nothing leaves the machine. Names go to stdout, one a line; what the command prints goes to stderr. Exits with the command's code.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

HEAD_BYTES, MAX_BYTES = 12, 4096
NO_SUCH_NAME = b"\x81\x83"
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
NAMESPACES = ("net", "mnt")
OUTSIDE = "NAME_QUERIES_OUTSIDE"
"""Environment variable with the namespaces that must not be changed."""


def list_namespaces() -> str:
    """Return the identities of this process's namespaces."""
    return " ".join(str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in NAMESPACES)


def read_name(query: bytes) -> str:
    """Return the name that a DNS query asks for."""
    labels, offset = [], HEAD_BYTES
    while query[offset]:
        labels.append(query[offset + 1 : offset + 1 + query[offset]].decode("ascii", "replace"))
        offset += query[offset] + 1
    return ".".join(labels)


def answer_queries(server: socket.socket, say: Callable[[str], None]) -> None:
    """Answer every query with "no such name", and say the name."""
    while True:
        query, client = server.recvfrom(MAX_BYTES)
        say(read_name(query))
        counts = query[4:6] + bytes(6)
        server.sendto(query[:2] + NO_SUCH_NAME + counts + query[HEAD_BYTES:], client)


def run_watched(command: list[str]) -> int:
    """Run the command behind our name server; changes the network and the mounts of the namespaces that it is called in."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer_queries, args=(server, lambda name: print(name, flush=True)), daemon=True).start()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as configuration:
        configuration.write("nameserver 127.0.0.1\n")
        configuration.flush()
        subprocess.run(["mount", "--bind", configuration.name, "/etc/resolv.conf"], check=True)
        return subprocess.run(command, stdout=sys.stderr, check=False).returncode


def main(command: list[str]) -> int:
    """Run the command in namespaces of its own; return its exit code."""
    if not command:
        sys.exit("no command given")
    outside, namespaces = os.environ.pop(OUTSIDE, ""), list_namespaces()
    if outside and set(outside.split()).isdisjoint(namespaces.split()):
        return run_watched(command)
    if outside:
        sys.exit("unshare made no namespaces")
    unshared = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, __file__, *command]
    return subprocess.run(unshared, env={**os.environ, OUTSIDE: namespaces}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
