"""A recorded run as pandas tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.analyse import energy, footprint, metrics
from bench.analyse.crowd import crowded
from bench.analyse.durations import gaps_ms, with_durations
from bench.analyse.pace import Gaps
from bench.analyse.series import Samples
from bench.analyse.summary import summarise
from bench.errors import RecordError
from bench.phrases import counted
from bench.record.documents import scenario_of
from bench.record.launches import STAMPS, LaunchRecord
from bench.record.manifest import Manifest
from bench.record.schema import REQUESTS
from bench.record.store import RunFolder

# The answers can outweigh all else; `Launch.read("requests")` has them.
REQUEST_COLUMNS = tuple(column.name for column in REQUESTS if column.name != "text")
IDENTITY = ("launch", "variant", "block", "position", "attempt", "status", "reason_kind", "reason", "wall_time")
CHUNK_COLUMNS = ("request_id", "seq", "kernel_ns", "user_ns", "kind")


@dataclass(eq=False)
class Launch:
    """One recorded launch. Its tables are read when asked for; only the requests, which everyone asks for, are kept."""

    id: str
    record: LaunchRecord
    folder: RunFolder

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A recorded table, pruned to some columns."""
        return self.folder.read(self.id, name, columns)

    def read(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The same in pandas; integers stay integers, nulls stay null."""
        return frame(self.table(name, columns))

    def requests(self) -> pa.Table:
        """Its requests with their durations, answers left out."""
        return self._requests

    @cached_property
    def _requests(self) -> pa.Table:
        return with_durations(self.table("requests", REQUEST_COLUMNS), self.record.client.remotes)

    def gaps(self, requests: pa.Table) -> metrics.Values:
        """Its inter-token latencies, ms."""
        return gaps_ms(self.table("chunks", CHUNK_COLUMNS), requests)


@dataclass(frozen=True, slots=True)
class Reduction:
    """A run, read once: one row per launch, and of each variant's valid launches the pooled samples by family and what
    their answers do not tell."""

    per_launch: pd.DataFrame
    pooled: Mapping[str, Mapping[str, metrics.Values]]
    gaps: Mapping[str, Gaps]


class Run:
    """A recorded run. Nothing is read before it is asked for; `per_launch` and `summary` never hold all chunks at once.

    `launches` has the identity, state and stamps of every launch, `per_launch` its metrics beside that. In `requests`
    there is one row per request with `*_ms` columns; `measured` is false for warm-up and for the first request.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.path = folder.path
        self.manifest: Manifest = folder.manifest

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A run's folder, or a folder of runs, of which the newest is taken."""
        return cls(RunFolder.open(find(Path(path))))

    def __repr__(self) -> str:
        return f"<Run {self.manifest.scenario}/{self.manifest.run_id}: {counted(len(self.all), 'launch')}>"

    @cached_property
    def all(self) -> tuple[Launch, ...]:
        """Every finished launch, in order of time."""
        return tuple(Launch(name, record, self._folder) for name, record in self._folder.finished().items())

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """Variant ids in the order of the scenario."""
        planned = [variant.id for variant in self.manifest.variants]
        return tuple(dict.fromkeys([*planned, *(launch.record.variant for launch in self.all)]))

    @cached_property
    def scenario(self) -> Mapping[str, Any]:
        """The scenario file as it was, as plain mappings; empty if it cannot be read any more."""
        return scenario_of(self.manifest)

    @property
    def slo(self) -> Mapping[str, float]:
        """Limits in ms from the scenario's `workload.slo`."""
        workload = self.scenario.get("workload")
        limits = workload.get("slo") if isinstance(workload, dict) else None
        return limits if isinstance(limits, dict) else {}

    @cached_property
    def launches(self) -> pd.DataFrame:
        """One row per launch: who, when, in which state, and its stamps in seconds since spawn."""
        return pd.DataFrame([identity(launch) | _stamps(launch.record) for launch in self.all])

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request of every launch, with `launch`, `variant`, `block` and the durations."""
        return self._stack(Launch.requests)

    @property
    def chunks(self) -> pd.DataFrame:
        """One row per streamed event of every launch. As large as it sounds: `Launch.read` gives one launch's."""
        return self._stack(lambda launch: launch.table("chunks"))

    @property
    def samples(self) -> pd.DataFrame:
        """One row per sensor reading of every launch."""
        return self._stack(lambda launch: launch.table("samples"))

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event of every launch."""
        return self._stack(lambda launch: launch.table("events"))

    @cached_property
    def phases(self) -> pd.DataFrame:
        """One row per phase of every launch."""
        return self._stack(lambda launch: launch.table("phases"))

    @cached_property
    def reduction(self) -> Reduction:
        """The run read once, launch by launch; the time is linear in the number of launches."""
        rows: list[dict[str, Any]] = []
        pools: dict[str, dict[str, list[metrics.Values]]] = {}
        gaps: dict[str, Gaps] = {}
        for launch in self.all:
            requests = launch.requests()
            samples = metrics.samples_of(requests, launch.gaps(requests))
            counted = {
                "requests": len(samples["ttft"]),
                "unsteady": _unsteady(launch.record),
                "crowded": crowded(launch.record),
            }
            found = metrics.of_launch(launch.record, requests, samples, self.slo) | _resources(launch, requests)
            rows.append(identity(launch) | counted | found)
            if launch.record.status == "ok":
                gaps.setdefault(launch.record.variant, Gaps()).add(requests)
                for family, values in samples.items():
                    pools.setdefault(launch.record.variant, {}).setdefault(family, []).append(values)
        pooled = {
            variant: {family: np.concatenate(parts) for family, parts in families.items()}
            for variant, families in pools.items()
        }
        return Reduction(_numeric(rows), pooled, gaps)

    @property
    def per_launch(self) -> pd.DataFrame:
        """One row per launch: identity and every metric of `metrics.METRICS`; what is not known is NaN."""
        return self.reduction.per_launch

    def summary(self) -> pd.DataFrame:
        """One row per variant and metric: value, interval, launches and requests behind it, or why there is none."""
        return summarise(self.variants, self.reduction.per_launch, self.reduction.pooled, self.reduction.gaps)

    def _stack(self, read: Callable[[Launch], pa.Table]) -> pd.DataFrame:
        tables = [(launch, read(launch)) for launch in self.all]
        if not tables:
            return pd.DataFrame(columns=["launch", "variant", "block"])
        keyed = [
            table.add_column(0, "launch", _constant(launch.id, len(table)))
            .add_column(1, "variant", _constant(launch.record.variant, len(table)))
            .add_column(2, "block", pa.array([launch.record.block] * len(table), pa.int64()))
            for launch, table in tables
        ]
        return frame(pa.concat_tables(keyed, promote_options="default"))


def _unsteady(record: LaunchRecord) -> bool:
    """Whether the launch's own check found that it drifted or never settled."""
    return any(check.name == "steadiness" and check.status == "warning" for check in record.checks)


def identity(launch: Launch) -> dict[str, Any]:
    """The columns that say which launch a row is about. Factors are columns `factor.<name>`."""
    record = launch.record
    return {
        "launch": launch.id,
        "variant": record.variant,
        "block": record.block,
        "position": record.position,
        "attempt": record.attempt,
        "status": record.status,
        "reason_kind": record.reason_kind,
        "reason": record.reason,
        "wall_time": record.wall_time,
    } | {f"factor.{name}": level for name, level in record.factors.items()}


def find(path: Path) -> Path:
    """The run at a path: the folder itself, its manifest's folder, or the newest run below."""
    if (path / "manifest.json").is_file():
        return path
    if path.name == "manifest.json" and path.is_file():
        return path.parent
    below = [*path.glob("[!.]*/manifest.json"), *path.glob("[!.]*/[!.]*/manifest.json")] if path.is_dir() else []
    if not below:
        raise RecordError(
            f"{path} is not a run's folder" if path.exists() else f"{path} does not exist",
            hint="a run lies in results/<scenario>/<run-id> and has a manifest.json",
        )
    return max(below, key=lambda manifest: manifest.stat().st_mtime_ns).parent


def frame(table: pa.Table) -> pd.DataFrame:
    """Arrow to pandas: stamps keep all their nanoseconds, nulls stay null."""
    result: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return result


def _numeric(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per launch; metrics are float64 throughout, also where all are null."""
    names = dict.fromkeys([*IDENTITY, *(name for row in rows for name in row), *metrics.METRICS])
    table = pd.DataFrame(rows, columns=list(names))
    measured = [name for name in names if name in metrics.METRICS or name.startswith("ttft[")]
    # The copy lays the many columns, each converted on its own, together again.
    return table.astype(dict.fromkeys(measured, "float64")).copy()


def _resources(launch: Launch, requests: pa.Table) -> dict[str, float | None]:
    """Memory and energy metrics, from what the probes read."""
    read = Samples(launch.table("samples"))
    return {**footprint.of_launch(launch.record, requests, read), **energy.of_launch(launch.record, requests, read)}


def _stamps(record: LaunchRecord) -> dict[str, float | None]:
    """The launch's stamps as seconds since spawn; for a server that ran before, since its first stamp."""
    known = [stamp for stamp in record.stamps.values() if stamp is not None]
    spawn = record.stamps.get("spawn")
    origin = spawn if spawn is not None else min(known, default=0)
    return {
        f"{name}_s": None if (stamp := record.stamps.get(name)) is None else (stamp - origin) / 1e9 for name in STAMPS
    }


def _constant(text: str, length: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * length, pa.int32()), pa.array([text]))
