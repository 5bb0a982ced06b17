"""What holds for every test of the harness."""

from __future__ import annotations

import os

# Tests must not wait for a study that runs on the same machine, and disturb only each other.
os.environ.setdefault("FIRSTTOKEN_BESIDE_OTHERS", "1")
