"""What doctor says of restoring engines: criu's own words, and the first thing that vLLM's snapshots lack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.probes.doctor import examine
from bench.probes.machine import machine
from bench.probes.roots import Roots
from bench.probes.snapshots import Ability, criu, vllm_snapshot

# What 3.17.1 says on Linux 6.18.
REFUSED = """\
Error (criu/util.c:642): exited, status=1
Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
Error (criu/vdso.c:613): vdso: Failed to fill self vdso symtable
"""


def program(folder: Path, version: str, said: str, code: int) -> str:
    """A criu in a folder of its own, as a search path."""
    path = folder / "criu"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Version: {version}" && exit 0\n'
        f"cat >&2 <<'END'\n{said}END\necho $* > {folder}/asked; exit {code}\n"
    )
    path.chmod(0o755)
    return str(folder)


def test_criu_that_passes_its_own_check_is_there_with_its_version(tmp_path: Path) -> None:
    found = criu(program(tmp_path, "4.2", "Looks good.\n", 0))
    assert (found.there, found.version, found.words_to_call[0]) == (True, "4.2", str(tmp_path / "criu"))
    assert (tmp_path / "asked").read_text().split() == ["check", *([] if os.geteuid() == 0 else ["--unprivileged"])]


def test_criu_that_the_kernel_does_not_suit_gives_the_cause_and_not_what_follows(tmp_path: Path) -> None:
    found = criu(program(tmp_path, "3.17.1", REFUSED, 1))
    assert (found.there, found.reason) == (False, "unsupported")
    assert found.words == "criu 3.17.1 check: vdso: Unexpected rt vDSO area bounds"
    assert "4.1 or newer" in str(found.fix)


def test_criu_that_is_not_installed_is_not_found(tmp_path: Path) -> None:
    assert criu(str(tmp_path)).reason == "not_found"


def test_vllms_snapshots_name_the_first_thing_that_they_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CRIU_CUDA_PLUGIN_DIR", str(tmp_path))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", "x86_64")))
    roots, works = Roots(proc=str(tmp_path / "proc")), Ability("criu", version="4.2")

    def provide(place: str, text: str = "") -> None:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)

    assert "NVIDIA GPU" in vllm_snapshot(roots, works).words
    provide("proc/driver/nvidia/version")
    assert vllm_snapshot(roots, Ability("criu", "unsupported", "criu check: no")).words == "criu check: no"
    provide("proc/sys/kernel/io_uring_disabled", "0\n")
    assert vllm_snapshot(roots, works).reason == "no_permission"
    provide("proc/sys/kernel/io_uring_disabled", "2\n")
    assert "cuda_plugin.so" in vllm_snapshot(roots, works).words
    provide("cuda_plugin.so")
    assert vllm_snapshot(roots, works).words == "no vLLM here has the command"
    provide("home/engines/vllm-1/lib/python3.12/site-packages/vllm/entrypoints/cli/snapshot.py")
    assert vllm_snapshot(roots, works).there
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", "aarch64")))
    assert vllm_snapshot(roots, works).words == "vLLM takes snapshots on x86-64 alone"


def test_doctor_tells_of_this_machine_and_of_no_emulated_one() -> None:
    with machine(None) as host:
        told = {one.field: one for one in examine(host).findings if one.probe == "restore"}
    assert list(told) == ["criu", "vllm snapshot"]
    here = criu()
    assert (told["criu"].status, here.there) == (here.reason or "ok", told["criu"].value is not None)
    with machine("orin-nx") as board:
        assert not [one for one in examine(board).findings if one.probe == "restore"]
