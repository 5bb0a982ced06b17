"""Runs with known truths, written through the real store: what the analysis must find again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.record.launches import Check, ClientAccount, ExitReport, FieldInfo, LaunchRecord, Phase, RemoteClient
from bench.record.manifest import Manifest, PlannedVariant
from bench.record.store import LaunchTables, RunFolder

SECOND = 1_000_000_000
MILLI = 1_000_000


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a made-up engine behaves. Times in ms unless named otherwise; `status` per block overrides `ok`."""

    ttft: float = 100.0
    tpot: float = 10.0
    first: float = 800.0
    import_s: float = 4.0
    load_s: float = 6.0
    warmup_s: float = 0.0
    jitter: float = 0.0
    launch_sd: float = 0.0
    memory_mib: float = 900.0
    watts: float = 0.0
    factors: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    failing: Sequence[int] = ()
    checks: Sequence[Check] = ()
    # Hosts that take turns at asking.
    remotes: Sequence[RemoteClient] = ()


def synthetic_run(
    root: Path,
    variants: Mapping[str, Behaviour],
    *,
    blocks: int = 3,
    requests: int = 20,
    tokens: int = 16,
    warmups: int = 0,
    seed: int = 7,
    scenario: str = "synthetic",
    run_id: str = "20260101-000000",
    samples: bool = True,
    scenario_text: str = "scenario: synthetic\nworkload: {slo: {ttft: 150}}\n",
    emulated: str | None = None,
) -> Path:
    """Write a run of every variant in every block, in an order drawn per block; the run's folder is returned."""
    draw = np.random.default_rng(seed)
    manifest = Manifest(
        run_id=run_id,
        scenario=scenario,
        scenario_digest="sha256:0",
        scenario_text=scenario_text,
        seed=seed,
        variants=[PlannedVariant(name, dict(variant.factors)) for name, variant in variants.items()],
        plan=[],
        fingerprint={"cpu": "two made-up cores", "kernel": "6.1", "memory_mib": 16000},
        versions={"firsttoken": "0.1.0", "python": "3.11"},
        created="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:30:00+00:00",
        state="complete",
        emulated=emulated,
    )
    clock = 1_000 * SECOND
    with RunFolder.create(root, manifest) as folder:
        for block in range(blocks):
            for position, name in enumerate(draw.permutation(list(variants))):
                clock = _launch(
                    folder, draw, str(name), variants[name], block, position, clock, requests, tokens, warmups, samples
                )
    return folder.path


def _launch(
    folder: RunFolder,
    draw: np.random.Generator,
    name: str,
    how: Behaviour,
    block: int,
    position: int,
    spawn: int,
    requests: int,
    tokens: int,
    warmups: int,
    samples: bool,
) -> int:
    launch_id = f"{block:03d}-{position:02d}-{name}"
    status, kind, reason = how.status.get(block, ("ok", None, None))
    partial = folder.begin(launch_id)
    imported = spawn + int(how.import_s * SECOND)
    loaded = imported + int(how.load_s * SECOND)
    (partial / "engine.log").write_text(f"{imported} out imports done\n{loaded} err model loaded\n")
    ready = loaded + int(how.first * MILLI)
    warm = ready + int(how.warmup_s * SECOND)
    rows: list[dict[str, Any]] = []
    chunks: dict[str, list[Any]] = {
        key: [] for key in ("request_id", "seq", "kernel_ns", "user_ns", "read", "kind", "tokens")
    }
    scale = float(np.exp(draw.normal(0.0, how.launch_sd)))
    now = warm
    if status in ("ok", "invalid"):
        stages = ["warmup"] * warmups + ["first"] + ["measured"] * requests
        for index, stage in enumerate(stages):
            factor = scale * float(np.exp(draw.normal(0.0, how.jitter)))
            first = how.first if index == 0 else how.ttft * factor
            now = _request(rows, chunks, index, stage, now, first, how.tpot, tokens, index in how.failing)
    for row in rows if how.remotes else ():
        row["client"] = row["request_id"] % len(how.remotes)
    first_row = next((row for row in rows if row["stage"] == "first"), None)
    record = LaunchRecord(
        launch_id=launch_id,
        variant=name,
        factors=dict(how.factors),
        block=block,
        position=position,
        status=status,  # type: ignore[arg-type]
        reason_kind=kind,
        reason=reason,
        stamps={
            "spawn": spawn,
            "first_output": imported,
            "port_open": loaded,
            "health": loaded,
            "ready": ready if rows else None,
            "warmup_end": warm if rows else None,
            "first_token": first_row["first_token_ns"] if first_row else None,
            "stop": now,
            "exit": now + SECOND // 2,
        },
        wall_time=f"2026-01-01T00:{block:02d}:{position:02d}+00:00",
        checks=[
            Check("steal", "ok", "0.0 % of the time", "1 %"),
            Check("swap", "unknown", "no /proc/vmstat", "0 pages"),
            *how.checks,
            *([Check(kind or "throttle", "violated", reason or "", "none", "cool it")] if status == "invalid" else []),
        ],
        fields=[
            FieldInfo("tree_memory", "pss_mib", "MiB", "proportional set size of the tree", "engine"),
            FieldInfo("processes", "cpu_s", "s", "cumulative: processor time of the tree", "engine"),
            FieldInfo("nvml", "gpu0.power_w", "W", "board power", "gpu board"),
            FieldInfo("nvml", "gpu0.temperature_c", "°C", "core"),
        ],
        client=ClientAccount(cpu_us_per_event=9.0, rss_mib=60.0, loop_lag_p99_ms=0.1, remotes=list(how.remotes)),
        exit=ExitReport(code=0),
        log_tail=["model loaded"] if status == "ok" else ["Traceback <script>alert(1)</script>", reason or ""],
    )
    phases = [
        Phase("imports", spawn, imported, "worker"),
        Phase("weights", imported, loaded, "worker"),
        Phase("cuda_graphs", None, None, "log", reason="not_found"),
    ]
    readings = list(_readings(how, spawn, now)) if samples else []
    folder.finish(
        launch_id,
        record,
        LaunchTables(
            requests=rows,
            chunks=chunks,
            events=[{"t_ns": spawn, "source": "conductor", "name": "spawn"}],
            phases=phases,
            samples=readings,
        ),
    )
    return now + 2 * SECOND


def _readings(how: Behaviour, spawn: int, end: int) -> Iterator[dict[str, Any]]:
    for t in range(spawn - SECOND, end, SECOND // 5):
        age = max(0.0, (t - spawn) / SECOND)
        power = how.watts if age else how.watts / 2
        for probe, name, value in (
            ("tree_memory", "pss_mib", min(1.0, age / 10) * how.memory_mib if age else None),
            ("processes", "cpu_s", 1.5 * age),
            ("nvml", "gpu0.power_w", power or None),
            ("nvml", "gpu0.temperature_c", None),
        ):
            reason = None if value is not None else "not_found" if probe == "tree_memory" else "unsupported"
            yield {"t_ns": t, "probe": probe, "field": name, "value": value, "reason": reason}


def _request(
    rows: list[dict[str, Any]],
    chunks: dict[str, list[Any]],
    index: int,
    stage: str,
    sent: int,
    ttft: float,
    tpot: float,
    tokens: int,
    failing: bool,
) -> int:
    first = sent + int(ttft * MILLI)
    last = first + int((tokens - 1) * tpot * MILLI)
    row: dict[str, Any] = {
        "request_id": index,
        "stream": 0,
        "stage": stage,
        "measured": stage == "measured",
        "prompt_id": f"p{index}",
        "bucket": 128,
        "turn": 0,
        "intended_ns": sent - MILLI // 10,
        "sent_ns": sent,
        "sent_end_ns": sent + MILLI // 100,
        "connect_ns": MILLI // 2 if index == 0 else None,
        "chunks": 0,
        "coalesced": 0,
        "output_tokens_asked": tokens,
    }
    if failing:
        rows.append(
            row | {"end_ns": sent + 50 * MILLI, "status": 500, "error_kind": "http", "error": "500 <b>oops</b>"}
        )
        return sent + 51 * MILLI
    rows.append(
        row
        | {
            "status": 200,
            "headers_ns": first - MILLI // 2,
            "first_chunk_ns": first - MILLI // 4,
            "first_token_ns": first,
            "first_answer_ns": first,
            "last_token_ns": last,
            "end_ns": last + MILLI // 10,
            "stamp_source": "kernel",
            "client_lag_us": 30.0,
            "client_lag_max_us": 90.0,
            "chunks": tokens,
            "prompt_tokens": 128,
            "completion_tokens": tokens,
            "cached_tokens": 0,
            "finish_reason": "length",
            "text": "<script>alert('answer')</script>",
        }
    )
    stamps = first + (np.arange(tokens) * tpot * MILLI).astype(np.int64)
    chunks["request_id"] += [index] * tokens
    chunks["seq"] += list(range(tokens))
    chunks["kernel_ns"] += stamps.tolist()
    chunks["user_ns"] += (stamps + 30_000).tolist()
    chunks["read"] += list(range(tokens))
    chunks["kind"] += ["content"] * tokens
    chunks["tokens"] += [1] * tokens
    return last + MILLI
