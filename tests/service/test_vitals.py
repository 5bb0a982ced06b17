"""Whose memory a watched server's is."""

from __future__ import annotations

import os

import psutil

from bench.run.front import Front
from bench.service.vitals import EngineProcesses


def test_behind_our_own_proxy_the_server_is_who_started_it() -> None:
    with Front() as front:
        memory, _, reason = EngineProcesses("127.0.0.1", front.port).read()
    assert reason is None
    assert memory is not None
    assert memory > psutil.Process(os.getpid()).memory_info().rss / 2**20 * 0.9, "this process and the proxy"
