"""What an engine's processes inherit of the harness's environment, and the variable by which they are found again."""

from __future__ import annotations

import os

# Every process of a launch inherits this, so that even one whose supervisor was killed can be found again.
MARK = "FIRSTTOKEN_LAUNCH"
# What belongs to the harness's own interpreter and would mislead the engine's.
PRIVATE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP")


def inherited() -> dict[str, str]:
    """The harness's environment without what is its own; output is not held back in buffers."""
    return {"PYTHONUNBUFFERED": "1"} | {name: value for name, value in os.environ.items() if name not in PRIVATE}
