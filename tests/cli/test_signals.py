"""Being told to stop is always heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bench.cli.signals import never_unheard
from tests.children import ended


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


def test_an_interrupt_that_an_import_turned_into_its_own_error_is_an_interruption_and_no_bug(tmp_path: Path) -> None:
    """What extension modules do in C: whatever stops their set-up is printed and becomes an ImportError."""
    (tmp_path / "extension.py").write_text(
        textwrap.dedent("""
        import time
        try:
            print("importing", flush=True)
            time.sleep(30)
        except BaseException:
            problem = "initialization failed"
        raise ImportError(problem)
        """)
    )
    script = """
        import sys
        from bench.cli import main
        from bench.scenario import reference
        def imports() -> str:
            import extension
        reference.schema_text = imports
        sys.exit(main(["schema"]))
    """
    with ended(
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert command.stdout.readline() == "importing\n"
        command.send_signal(signal.SIGINT)
        said = command.stderr.read()
    assert (command.returncode, said) == (130, "bench: interrupted\n")


def test_an_import_that_fails_by_itself_is_still_a_bug() -> None:
    script = """
        import sys
        from bench.cli import main
        from bench.scenario import reference
        def imports() -> str:
            raise ImportError("initialization failed")
        reference.schema_text = imports
        sys.exit(main(["schema"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "this is a bug (ImportError: initialization failed)" in done.stderr
