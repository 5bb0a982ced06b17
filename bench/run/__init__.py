"""The conductor: plan → launches → record."""

from __future__ import annotations

from bench.run.conductor import execute, pending, recorded, unfinished

__all__ = ["execute", "pending", "recorded", "unfinished"]
