"""Being told to stop is always heard."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest

from bench.cli.signals import never_unheard


class Interrupted:
    """Its end is where a Ctrl-C falls: Python can't raise there."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


def lose_one_and_wait() -> None:
    with never_unheard():
        Interrupted()
        # Waiting in the kernel, as a run mostly does.
        time.sleep(10)


def test_an_interrupt_that_python_would_forget_comes_again() -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        lose_one_and_wait()
    assert time.monotonic() - begun < 5


def test_nothing_of_it_is_printed_and_other_losses_still_are() -> None:
    script = """
        import time
        from bench.cli.signals import never_unheard

        class Lost:
            def __init__(self, error): self.error = error
            def __del__(self): raise self.error

        with never_unheard():
            Lost(ValueError("told"))
            try:
                Lost(KeyboardInterrupt())
                time.sleep(10)
            except KeyboardInterrupt:
                print("heard")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "heard\n"
    assert "ValueError: told" in done.stderr
    assert "KeyboardInterrupt" not in done.stderr
