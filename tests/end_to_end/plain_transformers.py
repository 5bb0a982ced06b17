"""What Transformers itself says, with nothing of ours in between. Run as: CHECKPOINT DTYPE JOB."""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint, dtype, job = sys.argv[1], getattr(torch, sys.argv[2]), json.loads(sys.argv[3])
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
answers = []
for text in job["prompts"]:
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        answer = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=job["tokens"],
            do_sample=False,
            eos_token_id=-1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        # The prompt in one pass, the answer token by token: in bf16 other ways round differently.
        read = model(ids).logits[0, :-1]
    whole = answer.sequences
    rows = torch.cat([read, *answer.logits]).float().log_softmax(-1)
    taken = rows.gather(-1, whole[0, 1:, None])[:, 0]
    answers.append(
        {
            "prompt": ids[0].tolist(),
            "tokens": whole[0, ids.shape[1] :].tolist(),
            "text": tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True),
            "logprobs": taken.tolist(),
            "best": [row.topk(3).values.tolist() for row in rows],
        }
    )
print(json.dumps(answers))
