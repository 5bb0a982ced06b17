"""The contract at unit speed: the scripted server, which is an engine like any other."""

from __future__ import annotations

from bench.conformance import contract

TestSimulated = contract("simulated", model="remote:", args={"ttft_ms": 20, "itl_ms": 4})
