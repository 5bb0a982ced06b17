"""From a monitor's journals to a run's tables: a launch per endpoint and stretch of watching, at most a day long.

A program of its own (`python -m bench.service.days FOLDER KEEP_DAYS [JOURNAL …]`, the watch list on stdin): tables
take a library that a monitor which lives for months does not carry.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import __version__
from bench.errors import BenchError
from bench.phrases import unwritten
from bench.record.documents import write_document
from bench.record.launches import ClockAccount, ExitReport, FieldInfo, LaunchRecord, StartAccount
from bench.record.manifest import Manifest, PlannedVariant
from bench.record.store import LaunchTables, RunFolder
from bench.service.journal import FOLDER, lines, utc
from bench.service.watchlist import parse

FIELDS = {
    "idle_s": ("s", "pause before the canary of the stream idle, as far as the monitor asked"),
    "memory_mib": ("MiB", "resident memory of the engine's processes"),
    "processor_cores": ("", "processors that the engine kept busy since the round before"),
}


def keep(
    folder: Path, text: str, keep_days: int, journals: Sequence[str], now: Callable[[], datetime] = utc
) -> list[str]:
    """Turn finished journals into launches, drop what is too old; names of the launches made.

    A launch that is there already was made by one that was killed before it could drop the journal.
    """
    run = RunFolder.open(_prepared(folder, text))
    made = []
    with run:
        _planned(run, text)
        for journal in (folder / FOLDER / name for name in journals):
            for endpoint, seen in by_endpoint(lines(journal)).items():
                name = f"{journal.stem}-{endpoint}"
                if not run.launch_path(name).exists():
                    run.begin(name)
                    run.finish(name, _record(name, endpoint, seen), _tables(seen))
                    made.append(name)
            journal.unlink()
        oldest = (now() - timedelta(days=keep_days)).strftime("%Y%m%dT%H%M%S")
        for launch in (folder / "launches").glob("[0-9]*T[0-9]*-*"):
            if launch.name < oldest:
                shutil.rmtree(launch)
    return made


def by_endpoint(seen: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """A journal's lines by endpoint."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in seen:
        found.setdefault(str(line.get("endpoint", "")), []).append(line)
    found.pop("", None)
    return found


def _prepared(folder: Path, text: str) -> Path:
    """The folder, made a run's folder if it is none yet."""
    (folder / "launches").mkdir(parents=True, exist_ok=True)
    if not (folder / "manifest.json").exists():
        name = parse(text).watch
        manifest = Manifest(
            run_id=name,
            scenario="monitor",
            scenario_digest="",
            scenario_text=text,
            seed=0,
            variants=[],
            plan=[],
            versions={"firsttoken": __version__},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=["made by bench monitor: a launch is a stretch of watching, not a start of an engine"],
        )
        write_document(folder / "manifest.json", asdict(manifest))
    return folder


def _planned(run: RunFolder, text: str) -> None:
    """The manifest as the watch list is now; endpoints that were watched once stay variants."""
    manifest = run.manifest
    known = dict.fromkeys([*(one.id for one in manifest.variants), *parse(text).endpoints])
    digest = hashlib.sha256(text.encode()).hexdigest()
    if [*known] != [one.id for one in manifest.variants] or digest != manifest.scenario_digest:
        manifest.variants = [PlannedVariant(id=name) for name in known]
        manifest.scenario_text, manifest.scenario_digest = text, digest
        run.save(manifest)


def _record(name: str, endpoint: str, seen: Sequence[Mapping[str, Any]]) -> LaunchRecord:
    rows = [line["row"] for line in seen if line["kind"] == "canary"]
    began = min((row["intended_ns"] for row in rows), default=None)
    ended = max((row["end_ns"] or row["intended_ns"] for row in rows), default=None)
    offsets = [line["offset_ns"] for line in seen if line["kind"] == "canary"]
    model = next((line["model"] for line in reversed(seen) if line.get("model")), None)
    # Days since an arbitrary beginning: what was seen on one day stands together.
    block = datetime.strptime(name[:8], "%Y%m%d").replace(tzinfo=UTC).toordinal()
    return LaunchRecord(
        launch_id=name,
        variant=endpoint,
        factors={},
        block=block,
        position=0,
        stamps={"ready": began, "stop": ended},
        wall_time=str(seen[0]["wall"]),
        clock=ClockAccount(offsets[0], offsets[-1]) if offsets else ClockAccount(),
        start=StartAccount(asked="attached", mode="attached"),
        facts={"attached": True, "served_model": model},
        fields=[FieldInfo("canary", field, unit, doc) for field, (unit, doc) in FIELDS.items()],
        exit=ExitReport(attached=True),
    )


def _tables(seen: Sequence[Mapping[str, Any]]) -> LaunchTables:
    canaries = [line for line in seen if line["kind"] == "canary"]
    requests = [dict(line["row"]) | {"request_id": number} for number, line in enumerate(canaries)]
    samples = [
        _sample(line["row"]["intended_ns"], "idle_s", line["idle_s"])
        for line in canaries
        if line.get("idle_s") is not None
    ]
    samples += [
        _sample(line["t_ns"], field, line.get(field))
        for line in seen
        if line["kind"] == "machine"
        for field in ("memory_mib", "processor_cores")
    ]
    events = [
        {"t_ns": line["t_ns"], "source": "monitor", "name": line["name"], "detail": line.get("detail")}
        for line in seen
        if line["kind"] == "event"
    ]
    return LaunchTables(requests=requests, events=events, samples=samples)


def _sample(t_ns: int, field: str, value: float | None) -> dict[str, Any]:
    reason = None if value is not None else "unsupported"
    return {"t_ns": t_ns, "probe": "canary", "field": field, "value": value, "reason": reason}


def main() -> int:
    """Do it, and say what was made."""
    folder = Path(sys.argv[1])
    try:
        made = keep(folder, sys.stdin.read(), int(sys.argv[2]), sys.argv[3:])
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(unwritten(folder, error), file=sys.stderr)
        return 1
    print(len(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
