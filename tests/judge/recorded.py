"""Runs with quality answers of known divergence, written through the real store."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from bench.analyse.run import Run
from bench.record.launches import LaunchRecord
from bench.record.manifest import Manifest, PlannedVariant
from bench.record.store import LaunchTables, RunFolder

SECOND, MILLI = 1_000_000_000, 1_000_000
VOCABULARY, LENGTH, DOCUMENTS = 30, 12, 6


def distributions(document: int, noise: float) -> np.ndarray[Any, Any]:
    """A made-up model's log-probabilities after each token of a document, moved by noise."""
    drawn = np.random.default_rng(document).normal(0, 2, (LENGTH - 1, VOCABULARY))
    drawn = drawn + noise * np.random.default_rng(document + 99).normal(0, 1, drawn.shape)
    rows: np.ndarray[Any, Any] = drawn - np.log(np.exp(drawn).sum(axis=1, keepdims=True))
    return rows


def documents(noise: float, *, whole: bool = True) -> list[dict[str, Any]]:
    """The log-probability documents of one launch."""
    made = []
    for number in range(DOCUMENTS):
        ids = [int(token) for token in np.random.default_rng(number).integers(0, VOCABULARY, LENGTH)]
        rows = distributions(number, noise)
        entries = [None, *({str(at): {"logprob": float(value)} for at, value in enumerate(row)} for row in rows)]
        data = base64.b64encode((-rows * 2048).round().astype("<u2").tobytes()).decode()
        full = {"positions": list(range(LENGTH - 1)), "vocabulary": VOCABULARY, "steps": 2048, "data": data}
        made.append(
            {
                "request_id": 100 + number,
                "prompt": ids,
                "prompt_logprobs": entries,
                "prompt_distributions": full if whole else None,
            }
        )
    return made


def recorded(
    root: Path,
    variants: Mapping[str, Mapping[str, Any]],
    *,
    blocks: int = 5,
    quality: Mapping[str, Any] | None = None,
    source: str = "path:model",
) -> Run:
    """A run. Per variant: `ttft` (ms), `noise` of its distributions, `weights` (bytes), `status` and `reason`."""
    text = {"scenario": "trade", "quality": {"against": {"quantization": next(iter(variants))}, **(quality or {})}}
    path = root / "scenario.yaml"
    YAML(typ="safe").dump(text, path)
    manifest = Manifest(
        run_id="20260101-000000",
        scenario="trade",
        scenario_digest="sha256:0",
        scenario_text=path.read_text(),
        seed=1,
        variants=[PlannedVariant(name, {"quantization": name}, model={"source": source}) for name in variants],
        plan=[],
        state="complete",
    )
    draw = np.random.default_rng(3)
    with RunFolder.create(root, manifest) as folder:
        for block in range(blocks):
            for position, (name, how) in enumerate(variants.items()):
                _launch(folder, draw, block, position, name, how)
    return Run.open(folder.path)


def _launch(
    folder: RunFolder, draw: np.random.Generator, block: int, position: int, name: str, how: Mapping[str, Any]
) -> None:
    launch_id = f"{block:03d}-{position:02d}-{name}"
    folder.begin(launch_id)
    spawn = (1 + 100 * block + 10 * position) * SECOND
    status = how.get("status", "ok")
    requests: list[dict[str, Any]] = []
    if status == "ok":
        for number in range(6):
            sent = spawn + (2 + number) * SECOND // 2
            first = sent + int(how["ttft"] * float(np.exp(draw.normal(0, 0.01))) * MILLI)
            requests.append(_row(number, "measured", sent, first, bucket=15, measured=True))
        if block == 0 and "noise" in how:
            for number in range(DOCUMENTS):
                row = _row(100 + number, "quality", spawn, spawn + MILLI)
                requests.append(row | {"prompt_id": f"doc-{number}", "label": "text"})
            said = how.get("answer", "the pump is broken")
            row = _row(200, "quality", spawn, spawn + MILLI)
            requests.append(row | {"prompt_id": "case", "label": "founding:fault-triage", "text": said})
    record = LaunchRecord(
        launch_id,
        name,
        {"quantization": name},
        block,
        position,
        status=status,
        reason_kind=how.get("kind"),
        reason=how.get("reason"),
        stamps={"spawn": spawn, "ready": spawn + SECOND, "first_token": spawn + SECOND},
        facts={"checkpoint_bytes": how.get("weights")},
    )
    answered = documents(how["noise"]) if block == 0 and "noise" in how and status == "ok" else None
    folder.finish(launch_id, record, LaunchTables(requests=requests, logprobs=answered or []))


def _row(number: int, stage: str, sent: int, first: int, **more: Any) -> dict[str, Any]:
    return {
        "request_id": number,
        "stream": 0,
        "stage": stage,
        "measured": False,
        "prompt_id": f"p{number}",
        "turn": 0,
        "intended_ns": sent,
        "sent_ns": sent,
        "sent_end_ns": sent,
        "status": 200,
        "headers_ns": first,
        "first_chunk_ns": first,
        "first_token_ns": first,
        "first_answer_ns": first,
        "last_token_ns": first + 50 * MILLI,
        "end_ns": first + 50 * MILLI,
        "chunks": 8,
        "coalesced": 0,
        "prompt_tokens": 15,
        "completion_tokens": 8,
        "text": "",
        **more,
    }
