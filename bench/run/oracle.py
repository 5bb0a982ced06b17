"""One question without chance, the same for every launch: its first token and how likely the engine held that to be.

A forked or restored engine that answers it as an executed one does computes the same. It is asked after the
measurement. What a start by exec answers is kept on this machine, for runs that have no such launch themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
from datetime import UTC, datetime
from pathlib import Path

from bench.engines.engine import Checkpoint, Endpoint, LaunchSpec
from bench.engines.parents import installation
from bench.engines.server import Server
from bench.home import home
from bench.probes.machine import Machine
from bench.record.documents import keep_document, parsed
from bench.record.launches import OracleAnswer, StartAccount
from bench.scenario.variant import OF_START, Variant

# Any vocabulary has these ids, and no tokenizer is needed to send them; a sentence's beginning where text is wanted.
IDS, LARGE = tuple(range(3, 19)), tuple(range(1000, 1016))
TEXT = "The capital of France is"
TIMEOUT_S = 120.0


def consulted(
    start: StartAccount, variant: Variant, spec: LaunchSpec, machine: Machine, server: Server, checkpoint: Checkpoint
) -> StartAccount:
    """A launch's account of its start with its answer, and for a copied one the one kept from an earlier run.

    The answer of a start by exec is kept.
    """
    answer = ask(server.endpoint, checkpoint)
    start = dataclasses.replace(start, oracle=answer)
    if not spec.argv:
        return start
    file = place(variant, spec, machine, checkpoint)
    if server.origin.copied:
        return dataclasses.replace(start, reference=kept(file))
    if answer.token is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        keep_document(file, dataclasses.asdict(dataclasses.replace(answer, when=now)))
    return start


def place(variant: Variant, spec: LaunchSpec, machine: Machine, checkpoint: Checkpoint) -> Path:
    """Where the answer of a start by exec is kept for variants like this one."""
    return home() / "oracles" / f"{_key(variant, spec, machine, checkpoint)}.json"


def kept(file: Path) -> OracleAnswer | None:
    """The answer kept there; None if there is none."""
    try:
        return parsed(OracleAnswer, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _key(variant: Variant, spec: LaunchSpec, machine: Machine, checkpoint: Checkpoint) -> str:
    """All that an answer depends on: machine, installation, engine and weights; the start is not among it."""
    engine = variant.engine.model_dump(by_alias=True, exclude_defaults=True)
    engine["args"] = {name: value for name, value in engine.get("args", {}).items() if f"args.{name}" not in OF_START}
    told = {
        "host": [machine.fingerprint.get("host_class"), machine.fingerprint.get("cpu", {}).get("features")],
        "installation": installation(Path(spec.argv[0]), spec.env.get("PYTHONPATH", "")),
        "engine": engine,
        "warmup": [dataclasses.asdict(step) for step in variant.warmup],
        "quantization": variant.quantization,
        "checkpoint": [str(checkpoint.path), checkpoint.digest],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:24]


def ask(endpoint: Endpoint, checkpoint: Checkpoint) -> OracleAnswer:
    """The first token of the question, asked now."""
    ids = LARGE if (checkpoint.vocab_size or 0) > LARGE[-1] else IDS
    body = {
        "model": endpoint.model,
        "prompt": list(ids) if endpoint.token_ids else TEXT,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 1,
        "ignore_eos": True,
        "return_tokens_as_token_ids": True,
        **endpoint.body,
    }
    kind = http.client.HTTPSConnection if endpoint.tls else http.client.HTTPConnection
    connection = kind(endpoint.host, endpoint.port, timeout=TIMEOUT_S)
    headers = {"Content-Type": "application/json", **endpoint.headers}
    try:
        connection.request("POST", f"{endpoint.prefix}/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            return OracleAnswer(reason=f"the engine answers {answer.status}: {text[:200].decode('utf-8', 'replace')}")
        told = json.loads(text)["choices"][0]["logprobs"]
        return OracleAnswer(token=str(told["tokens"][0]), logprob=float(told["token_logprobs"][0]))
    except (OSError, http.client.HTTPException) as error:
        return OracleAnswer(reason=f"the engine did not answer: {error or type(error).__name__}")
    except (ValueError, KeyError, IndexError, TypeError):
        return OracleAnswer(reason="the engine gives no log-probabilities")
    finally:
        connection.close()
