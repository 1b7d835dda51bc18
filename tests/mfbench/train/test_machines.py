"""`mfbench train` under `torchrun --nnodes 2`: two network namespaces, joined by a cable, stand for two machines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mfbench.installation import ROOT
from tests.mfbench.train.test_processes import EACH_ALONE, run

TOOLS = ("unshare", "nsenter", "ip", "mount", "bash")
# The first machine, with all that it starts, lives in separate namespaces. The kernel removes them as their last
# process ends, and ends that where `unshare` is killed: interfaces, addresses and mounts exist nowhere else.
ISOLATED = [
    "unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
]  # fmt: skip
NETWORK = """
    set -eu
    mount -t tmpfs none /run  # where `ip netns` keeps names
    ip netns add second
    ip link add eth0 type veth peer name eth0 netns second
    ip address add 10.0.0.1/24 dev eth0
    ip -netns second address add 10.0.0.2/24 dev eth0
    for device in lo eth0; do
        ip link set $device up
        ip -netns second link set $device up
    done
"""
TRAIN = """
    traffic=$1
    shift
    torchrun=("$PYTHON" -m torch.distributed.run --nnodes 2 --nproc-per-node 1)
    torchrun+=(--master-addr 10.0.0.1 --master-port 29500)
    nsenter --net=/run/netns/second "${torchrun[@]}" --node-rank 1 -m mfbench train "$@" &
    "${torchrun[@]}" --node-rank 0 -m mfbench train "$@"
    wait $!
    ip -json -stats link show eth0 > "$traffic"
"""


def isolated(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | EACH_ALONE | {"PYTHON": sys.executable, "GLOO_SOCKET_IFNAME": "eth0"}
    command = [*ISOLATED, "bash", "-c", NETWORK + script, "bash", *arguments]
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=280)


@pytest.fixture
def namespaces() -> None:
    """Skip where two joined namespaces cannot be made."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    tried = isolated("")
    if tried.returncode:
        pytest.skip(f"network namespaces are not permitted: {tried.stderr.strip().splitlines()[-1]}")


@pytest.mark.processes
@pytest.mark.usefixtures("namespaces")
def test_losses_of_two_machines_are_those_of_one_process(tmp_path: Path) -> None:
    epochs = 60
    arguments = ["--epochs", str(epochs), "--every", "20"]
    done = isolated(TRAIN, str(tmp_path / "traffic"), *arguments, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    together = json.loads(done.stdout)  # of one process on one machine
    alone = run(arguments, 1)
    assert together["learning_rate"] == pytest.approx(alone["learning_rate"], rel=1e-12)
    assert [entry["epoch"] for entry in together["entries"]] == [entry["epoch"] for entry in alone["entries"]]
    for one, other in zip(together["entries"], alone["entries"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6), one["epoch"]
    (cable,) = json.loads((tmp_path / "traffic").read_text())
    items, rank, float32 = 300, 30, 4
    gradients = epochs * items * (rank + 1) * float32  # bytes that each machine at least sends of a sum of two
    assert min(cable["stats64"][direction]["bytes"] for direction in ("rx", "tx")) > gradients
