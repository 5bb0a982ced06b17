"""Carrying out a run: plan → launches → record."""

from __future__ import annotations

from bench.run.conductor import Rules, Setting, carry_out

__all__ = ["Rules", "Setting", "carry_out"]
