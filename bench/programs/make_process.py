"""Write a safetensors checkpoint: a model of random weights from its shape, or a dense copy of a GGUF file.

Runs in the interpreter of an environment that has torch and transformers.
    make_checkpoint.py dummy SHAPE.json FOLDER
    make_checkpoint.py dense FILE.gguf FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(vocab_size: int) -> Any:
    """A byte-level tokenizer of that many tokens: the bytes, a few special ones, and words no text encodes to.

    The words give every id that a random model may pick something to say.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = [f"Ġ{_letters(number)}" for number in range(vocab_size - len(known))]
    vocab = {token: index for index, token in enumerate([*known, *words])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    pad, bos, eos, start, end = SPECIAL
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=pad, bos_token=bos, eos_token=eos, additional_special_tokens=[start, end]
    )
    made.chat_template = TEMPLATE
    return made


def dummy(shape: dict[str, Any], folder: Path) -> None:
    """Random weights of a fixed seed in bf16, with the initial spread that the model's configuration names."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(shape)
    config = AutoConfig.for_model(shape.pop("model_type"), **shape, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(torch.bfloat16)
    _save(model, tokenizer(config.vocab_size), folder)


def dense(file: Path, folder: Path) -> None:
    """Unpack a GGUF file to bf16, with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(file.parent), file.name
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    # What the file was packed as says nothing about the copy.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _save(model, AutoTokenizer.from_pretrained(where, gguf_file=name), folder)


def _save(model: Any, tokens: Any, folder: Path) -> None:
    """The checkpoint in words that Transformers 4 understands too: on a Jetson it is what vLLM stands on."""
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    config, names = folder / "config.json", folder / "tokenizer_config.json"
    shape = json.loads(config.read_text())
    shape.pop("_model_name_or_path", None)
    rope = shape.get("rope_parameters") or {}
    if "rope_theta" in rope:
        shape["rope_theta"] = rope["rope_theta"]
    shape["torch_dtype"] = shape.get("dtype", "bfloat16")
    config.write_text(json.dumps(shape, indent=2))
    described = json.loads(names.read_text())
    described["tokenizer_class"] = "PreTrainedTokenizerFast"
    described["additional_special_tokens"] = described.pop("extra_special_tokens", [])
    names.write_text(json.dumps(described, indent=2))
    for file in folder.iterdir():
        file.chmod(0o644)


def _letters(number: int) -> str:
    letters = ""
    while True:
        number, rest = divmod(number, 26)
        letters = chr(ord("a") + rest) + letters
        if number == 0:
            return letters
        number -= 1


def main(argv: list[str]) -> None:
    """Make what the command line names."""
    kind, source, folder = argv
    if kind == "dummy":
        dummy(json.loads(Path(source).read_text()), Path(folder))
    else:
        dense(Path(source), Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
