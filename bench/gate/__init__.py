"""Verdicts for people and for CI: what the scenario's gate says of a run, and how it is told."""

from __future__ import annotations

from bench.gate.policy import Gate, judge, judge_stored

__all__ = ["Gate", "judge", "judge_stored"]
