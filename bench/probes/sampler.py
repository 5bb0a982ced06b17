"""Start the sampler's process for one launch, tell it whom to watch, and collect its account."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import pipes
from bench.plugins import available, load
from bench.probes.boards import is_orin
from bench.probes.context import Watched
from bench.probes.roots import Roots
from bench.probes.sampler_process import START_S
from bench.probes.sink import FILE
from bench.record.documents import parsed
from bench.record.launches import FieldInfo, ProbeAccount, SamplerAccount

STOP_S = 3.0
# A mark is there within milliseconds; on a machine that leaves the sampler no processor it may take its time.
MARK_S = 1.0


@dataclass(frozen=True, slots=True)
class SamplerInfo:
    """What the sampler says of itself.

    `probes` has, per probe: period_s, samples, missed (readings a whole period late), stale (nulls written while it
    hung), failed, max_gap_s (s), cpu_s and error. `complete` is false when the process was lost before it could tell.
    """

    file: str
    fields: list[FieldInfo] = field(default_factory=list)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    cpu_s: float | None = None
    wall_s: float | None = None
    rss_mib: float | None = None
    lost_lines: int | None = None
    complete: bool = False
    log: str = ""

    @property
    def cpu_share(self) -> float | None:
        """CPU time of the sampler as a share of one core."""
        return self.cpu_s / self.wall_s if self.cpu_s is not None and self.wall_s else None

    def account(self) -> SamplerAccount:
        """The same without the fields, for launch.json."""
        return SamplerAccount(
            probes={name: parsed(ProbeAccount, said) for name, said in self.probes.items()},
            cpu_s=self.cpu_s,
            wall_s=self.wall_s,
            cpu_share=self.cpu_share,
            rss_mib=self.rss_mib,
            lost_lines=self.lost_lines,
            complete=self.complete,
            log=self.log,
        )


class Sampler:
    """A running sampler."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, watched: Watched) -> None:
        self._process = process
        self._folder = folder
        self._watched = watched
        self._buffer = b""
        self._first: dict[str, Any] = {}
        self._marks = 0

    @classmethod
    def start(
        cls,
        folder: Path,
        watched: Watched | None = None,
        *,
        probes: Mapping[str, Mapping[str, Any]] | None = None,
        period_s: float = 0.1,
        roots: Roots | None = None,
    ) -> Sampler:
        """Sample into `folder`/samples.jsonl until stop(), `watched` at first.

        `probes` maps names of bench.probes to options (`period_s` among them); left out, those that fit the machine.
        No probe is read more often than every `period_s` seconds. UnknownName if a probe does not exist.
        """
        roots = roots or Roots()
        watched = watched or Watched()
        chosen = suitable(roots, watched.metrics_url) if probes is None else probes
        config = {
            "folder": str(folder),
            "probes": {name: _spec(name, options) for name, options in chosen.items()},
            "roots": roots.to_json(),
            "engine": watched.engine,
            "harness": list(watched.harness),
            "metrics_url": watched.metrics_url,
            "period_s": period_s,
        }
        with (folder / "sampler.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.probes.sampler_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        sampler = cls(process, folder, watched)
        sampler._tell(config)
        sampler._first = sampler._hear(START_S + 2.0) or {}
        return sampler

    @property
    def process_id(self) -> int:
        """The sampler's pid."""
        return self._process.pid

    def set_pid(self, pid: int | None) -> None:
        """Follow this engine and all that comes from it; None for no engine."""
        self._watched.engine = pid
        self._tell({"watch": {"engine": pid}})

    def set_metrics_url(self, url: str | None) -> None:
        """Where the engine serves Prometheus metrics, once its port is known."""
        self._tell({"watch": {"metrics_url": url}})

    def mark(self) -> bool:
        """Have whose processor time it was read now, at the end of a span that counts; whether it was read in time."""
        self._marks += 1
        self._tell({"mark": self._marks})
        return self._hear_of("marked", MARK_S) == {"marked": self._marks}

    def stop(self) -> SamplerInfo:
        """End it and give its account; what it has written stays whatever happens."""
        self._tell({"stop": True})
        last = self._hear_of("probes", STOP_S)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # commands not yet sent to a process that is gone
                    pipe.close()
        log = self._folder / "sampler.log"
        words = log.read_text(errors="replace").strip() if log.exists() else ""
        if not words:
            log.unlink(missing_ok=True)
        told = last or self._first
        return SamplerInfo(
            file=FILE,
            fields=[FieldInfo(**info) for info in told.get("fields", ())],
            probes=told.get("probes", {}),
            cpu_s=told.get("cpu_s"),
            wall_s=told.get("wall_s"),
            rss_mib=told.get("rss_mib"),
            lost_lines=told.get("lost_lines"),
            complete=last is not None,
            log=words[-2000:],
        )

    def _tell(self, message: Mapping[str, Any]) -> None:
        pipe = self._process.stdin
        if pipe is None or pipe.closed:
            return
        with suppress(OSError):  # it died; stop() says so
            pipes.write_all(pipe.fileno(), json.dumps(message).encode() + b"\n")

    def _hear_of(self, key: str, timeout_s: float) -> dict[str, Any] | None:
        """The next line that has this key, and of marks the latest one; what comes before is late and dropped."""
        end = time.monotonic() + timeout_s
        while (message := self._hear(end - time.monotonic())) is not None:
            if key in message and message.get("marked", self._marks) == self._marks:
                return message
        return None

    def _hear(self, timeout_s: float) -> dict[str, Any] | None:
        """The next line it says, or None if it is silent or gone."""
        pipe = self._process.stdout
        if pipe is None or pipe.closed:
            return None
        end = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            data = os.read(pipe.fileno(), 65536) if ready else b""
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


def suitable(roots: Roots, metrics_url: str | None = None) -> dict[str, dict[str, Any]]:
    """The probes that can say something on this machine, by name, without options."""
    names = ["host", "pressure", "tree", "tree_memory", "thermal", "engine"]
    if any(roots.in_sys("class", "devfreq").glob("*")):
        names.append("jetson")
    # On Orin the library starts and then supports nothing; Thor and desktop drivers show themselves here.
    driver = roots.nvml != "real" or roots.in_proc("driver", "nvidia", "version").exists()
    if roots.nvml != "none" and driver and not is_orin(roots):
        names.append("nvml")
    return {name: {} for name in names if name in available("probes")}


def _spec(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if name not in available("probes"):
        load("probes", name)  # raises UnknownName with the names there are
    rest = dict(options)
    return {"factory": available("probes")[name].value, "period_s": rest.pop("period_s", None), "options": rest}
