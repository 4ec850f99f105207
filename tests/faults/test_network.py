"""The kernel loses packets in a network of our own; where there can be none, that is said."""

from __future__ import annotations

import subprocess
import sys

from tests.faults.test_matrix import ROOT

LOSSY = [sys.executable, "-m", "loadtests.faults", "--only", "network_lossy", "--rounds", "1"]
FORBIDS = ["unshare", "--user", "--map-root-user", "sh", "-c"]
"""Runs a command where no network namespace may be made: `root` has one of users to its name, and no more."""
ALONE = ["unshare", "--map-root-user", "--net", "--"]
LISTEN = """
import socket, sys, threading
from loadtests.faults import network

network._run("ip", "link", "set", "lo", "up")
server = socket.create_server(("127.0.0.1", 0))
got = []

def serve():
    taken, _ = server.accept()
    while data := taken.recv(65536):
        got.append(len(data))

thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(server.getsockname())
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
with network.lossy(20) as losses:
    for _ in range(300):
        client.sendall(b"x")
    client.close()
    thread.join()
print(sum(got), losses.packets > 0, losses.segments_resent > 0)
"""


def test_what_the_kernel_drops_is_sent_again_and_nothing_is_lost() -> None:
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", LISTEN],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["300", "True", "True"], done.stderr


def test_where_there_can_be_no_network_of_our_own_the_matrix_says_so_and_fails() -> None:
    forbidden = f"echo 0 > /proc/sys/user/max_net_namespaces && exec {' '.join(LOSSY)}"
    done = subprocess.run(
        [*FORBIDS, forbidden], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "a network namespace of its own" in done.stderr
    assert "Traceback" not in done.stderr
