"""One question without chance, the same for every launch: its first token and how likely the engine held that to be.

A forked engine that answers it as an executed one does computes the same. It is asked after the measurement.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

from bench.engines.base import Checkpoint, Endpoint

# Any vocabulary has these ids and no tokenizer is needed to send them; where only text is taken, a sentence's beginning.
IDS, LARGE = tuple(range(3, 19)), tuple(range(1000, 1016))
TEXT = "The capital of France is"
TIMEOUT_S = 120.0


def ask(endpoint: Endpoint, checkpoint: Checkpoint) -> dict[str, Any]:
    """`token` and `logprob` (nats) of the first token, or `reason` where there is none."""
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
            return {"reason": f"the engine answers {answer.status}: {text[:200].decode('utf-8', 'replace')}"}
        told = json.loads(text)["choices"][0]["logprobs"]
        return {"token": str(told["tokens"][0]), "logprob": float(told["token_logprobs"][0])}
    except (OSError, http.client.HTTPException) as error:
        return {"reason": f"the engine did not answer: {error or type(error).__name__}"}
    except (ValueError, KeyError, IndexError, TypeError):
        return {"reason": "the engine gives no log-probabilities"}
    finally:
        connection.close()
