"""What the tests on Ray share: the command, what it prints, what it leaves running, and a cluster of two nodes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

COMMAND = (sys.executable, "-m", "tiny_imagenet")


@contextmanager
def ray_installed() -> Iterator[None]:
    """Skip the tests where Ray is not installed; have it listen on 127.0.0.1 alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray reads it as it is imported
        pytest.importorskip("ray", reason="Ray is not installed: make extras")
        yield


@contextmanager
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """Start a cluster of two nodes of one core each; yield it, and the node that is not its head."""
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster, second
    finally:
        cluster.shutdown()


def lose(cluster: Any, node: Any) -> None:
    """Have a node vanish with every process on it, as a machine does whose power fails."""
    (raylet,) = node.all_processes["raylet"]
    processes = [psutil.Process(raylet.process.pid)]
    processes += processes[0].children(recursive=True)
    for process in processes:
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


def wait_for(process: subprocess.Popen[str], *patterns: str) -> list[str]:
    """Read what a process prints until each of the patterns has come; return the lines."""
    assert process.stdout is not None
    lines: list[str] = []
    missing = set(patterns)
    for line in process.stdout:
        lines.append(line)
        missing -= {pattern for pattern in missing if re.search(pattern, line)}
        if not missing:
            return lines
    pytest.fail(f"{missing} did not come:\n{''.join(lines)}")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in a folder or below it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve().is_relative_to(folder):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [command for command in found if command]
