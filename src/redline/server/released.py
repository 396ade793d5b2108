"""Whether a stopped server has given back what it held: its port, and the memory of the GPUs."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence

from redline.server import address

_LIMIT_S = 60.0
_SLACK_MIB = 512  # what else may have grown on a GPU meanwhile
_PAUSE_S = 0.1


def gpu_memory_mib() -> tuple[int, ...]:
    """Memory in use on each GPU; empty where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20.0).stdout
        return tuple(int(line) for line in said.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def wait_until_released(url: str, memory_before_mib: Sequence[int], limit_s: float = _LIMIT_S) -> str | None:
    """Wait until the port is free and GPU memory is back where it was; after `limit_s`, a warning."""
    deadline = time.monotonic() + limit_s
    while missing := _missing(url, memory_before_mib):
        if time.monotonic() >= deadline:
            return f"{missing}, {limit_s:g} s after the server was stopped; the next server may not start"
        time.sleep(_PAUSE_S)
    return None


def _missing(url: str, memory_before_mib: Sequence[int]) -> str:
    if holder := address.in_use(url):
        return f"port {address.host_and_port(url)[1]} is still in use by {holder}"
    now = gpu_memory_mib() if memory_before_mib else ()
    for gpu, (before, used) in enumerate(zip(memory_before_mib, now, strict=False)):
        if used > before + _SLACK_MIB:
            return f"GPU {gpu} still has {used - before} MiB more in use than before the start"
    return ""
