import socket
import time
from collections.abc import Iterator

import pytest

from bench.loadgen.generator import LoadGenerator
from bench.loadgen.selfcheck import server
from bench.loadgen.target import ask_for_stamps


@pytest.fixture(scope="session", autouse=True)
def _kernel_stamps() -> Iterator[None]:
    """Keeps receive stamps switched on, as the load generator's own process does for itself."""
    with socket.socket() as keeper:
        ask_for_stamps(keeper)
        # The kernel switches them on a moment later.
        time.sleep(0.05)
        yield


@pytest.fixture(scope="module")
def generator() -> Iterator[LoadGenerator]:
    with LoadGenerator() as one:
        yield one


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with server({"ttft_ms": 5, "itl_ms": 1}) as one:
        yield one
