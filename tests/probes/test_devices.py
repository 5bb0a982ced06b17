"""A process without a GPU's device file computes on the processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.probes.devices import without_gpu


def holding(proc: Path, pid: int, *files: str) -> None:
    folder = proc / f"{pid}/fd"
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        (folder / str(number)).symlink_to(file)


@pytest.mark.parametrize("file", ["/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu/igpu0/ctrl"])
def test_one_that_holds_a_gpu_may_compute_there(tmp_path: Path, file: str) -> None:
    holding(tmp_path, 7, "/dev/null")
    holding(tmp_path, 8, "/dev/null", file)
    assert without_gpu([7, 8], str(tmp_path)) == {}


@pytest.mark.parametrize("file", ["/dev/nvidiactl", "/dev/nvmap", "/dev/null", "socket:[7]"])
def test_tools_files_are_no_gpu(tmp_path: Path, file: str) -> None:
    holding(tmp_path, 7, file)
    found = without_gpu([7], str(tmp_path))
    assert found == {"device_used": "cpu", "device_evidence": "its process holds no GPU's device file open"}


def test_several_are_counted_and_one_that_ended_is_not(tmp_path: Path) -> None:
    holding(tmp_path, 7, "/dev/null")
    holding(tmp_path, 8, "/dev/null")
    assert without_gpu([7, 8, 9], str(tmp_path))["device_evidence"].startswith("none of its 2 processes")
    assert without_gpu([9], str(tmp_path)) == {}


def test_this_very_process_computes_on_the_processor() -> None:
    assert without_gpu([os.getpid()])["device_used"] == "cpu"
