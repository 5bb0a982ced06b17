"""The conductor: plan → launches → record."""

from __future__ import annotations

from bench.run.conductor import execute, unfinished

__all__ = ["execute", "unfinished"]
