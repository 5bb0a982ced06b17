"""Any engine behind a proxy that slows its stream by a known share."""

from __future__ import annotations

import sys
from dataclasses import replace

from bench.emulate import FOLDER
from bench.engines.engine import LaunchSpec
from bench.errors import LaunchError
from bench.scenario.variant import Slowdown

PROXY = FOLDER / "slowing_proxy.py"


def slowed(spec: LaunchSpec, slowdown: Slowdown, port: int) -> LaunchSpec:
    """The same launch behind the proxy, which listens on `port`; the engine is the proxy's child."""
    if spec.endpoint.tls:
        raise LaunchError("unsupported", "a server behind TLS cannot be slowed: the proxy reads its stream")
    argv = (
        sys.executable,
        str(PROXY),
        f"--host={spec.endpoint.host}",
        f"--listen={port}",
        f"--upstream={spec.endpoint.host}:{spec.endpoint.port}",
        f"--ttft={slowdown.ttft}",
        f"--itl={slowdown.itl}",
        "--",
        *spec.argv,
    )
    # The proxy is the launch's own process: nothing has imported it.
    why = "behind the slowing proxy an engine is the proxy's child"
    place = replace(spec.endpoint, port=port)
    return replace(spec, argv=argv, endpoint=place, parent=None, image=None, not_forked=why)
