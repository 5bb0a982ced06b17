"""What holds for every test of the harness."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

from tests.podman import podman, podman_store

# Fixtures for whoever asks for them.
__all__ = ["podman", "podman_store"]

# Tests must not wait for a study that runs on the same machine, and disturb only each other.
os.environ.setdefault("FIRSTTOKEN_BESIDE_OTHERS", "1")

# Whoever starts tests in the background may have made Ctrl-C unheard, for them and for all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time: a red run then speaks of the change. HYPOTHESIS_SEARCH=1 looks for new ones.
settings.register_profile("repeated", derandomize=not os.environ.get("HYPOTHESIS_SEARCH"), deadline=None)
settings.load_profile("repeated")
