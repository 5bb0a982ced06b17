"""LiteLLM's proxy in front of a server: its configuration as data, and what starts it with that on a port of its own.

    python -m bench.service.litellm --python ENVIRONMENT/bin/python --upstream URL --model NAME --port P --folder FOLDER

The program writes the configuration into the folder and becomes the proxy, in the environment `litellm`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

# The proxy's client library insists on a key; this one opens nothing.
NO_KEY = "none"
# Where the server wants no key this proxy wants none either: it listens on the loopback address, for one launch.
OPEN = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
# Nothing is told to anybody, and prices are read from the package and not from the network.
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "DO_NOT_TRACK": "1", "NO_DOCS": "True"}


def config(upstream: str, model: str, key_env: str | None) -> dict[str, Any]:
    """One model, passed on under its own name. A key is named and never written, and opens the proxy too."""
    base = upstream.rstrip("/").removesuffix("/v1")
    behind = {
        "model": f"openai/{model}",
        "api_base": f"{base}/v1",
        "api_key": f"os.environ/{key_env}" if key_env else NO_KEY,
        # A second try would be a second request.
        "max_retries": 0,
    }
    guarded = {"general_settings": {"master_key": f"os.environ/{key_env}"}} if key_env else {}
    return {
        **guarded,
        "model_list": [{"model_name": model, "litellm_params": behind}],
        "litellm_settings": {"telemetry": False, "num_retries": 0, "drop_params": False},
    }


def main() -> int:
    """Write the configuration and become the proxy."""
    parser = argparse.ArgumentParser(description="LiteLLM's proxy in front of a server, on a port of its own")
    parser.add_argument("--python", required=True, help="interpreter of the environment that has it")
    parser.add_argument("--upstream", required=True, help="base URL of the server behind")
    parser.add_argument("--model", required=True, help="what the server calls its model")
    parser.add_argument("--key-env", help="variable that holds the server's API key")
    parser.add_argument("--port", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the configuration is kept")
    options = parser.parse_args()
    # JSON is YAML, which is what the proxy reads.
    place = options.folder.absolute() / "litellm.yaml"
    place.write_text(json.dumps(config(options.upstream, options.model, options.key_env), indent=1), encoding="utf-8")
    words = ["--config", str(place), "--host", "127.0.0.1", "--port", options.port, "--telemetry", "False"]
    argv = [options.python, "-m", "litellm.proxy.proxy_cli", *words]
    os.execve(options.python, argv, {**os.environ, **QUIET, **OPEN})


if __name__ == "__main__":
    sys.exit(main())
