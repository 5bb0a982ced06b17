"""The end that nobody foresaw: one sentence for people, the traceback in a file."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback

from bench import __version__


def report(error: BaseException) -> str:
    """Keep the traceback in a file and say where; BENCH_DEBUG=1 prints it as well."""
    lines = traceback.format_exception(error)
    if os.environ.get("BENCH_DEBUG", "0") not in ("", "0"):
        print("".join(lines), end="", file=sys.stderr)
    what = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".traceback", delete=False) as file:
            file.write(f"firsttoken {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
            file.write(f"bench {' '.join(sys.argv[1:])}\n\n{''.join(lines)}")
    except OSError:
        return f"this is a bug ({what}); BENCH_DEBUG=1 shows the traceback"
    return f"this is a bug ({what}); the traceback is in {file.name}"
