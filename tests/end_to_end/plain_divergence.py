"""Perplexity and divergence as plain Transformers gives them. Run as: REFERENCE OTHER < documents (JSON)."""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
documents = json.load(sys.stdin)
models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in sys.argv[1:3]]
losses: tuple[list[float], list[float]] = ([], [])
divergences: list[float] = []
for document in documents:
    ids = torch.tensor([document["ids"]])
    with torch.no_grad():
        rows = [model(ids).logits[0].double().log_softmax(-1) for model in models]
    for side, row in zip(losses, rows, strict=True):
        side += (-row[:-1].gather(-1, ids[0, 1:, None])[:, 0]).tolist()
    p, q = (row[document["positions"]] for row in rows)
    divergences += (p.exp() * (p - q)).sum(-1).tolist()
mean = [sum(side) / len(side) for side in losses]
perplexity = [float(torch.tensor(value).exp()) for value in mean]
print(json.dumps({"perplexity": perplexity, "kl": sum(divergences) / len(divergences)}))
