"""A GGUF file served as it was published: what it is, and a tokenizer made from its own vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.engines.engine import Checkpoint
from bench.engines.gguf import Header, gguf_file, header
from bench.models.cache import Cache
from bench.models.convert import DENSE

# tokenizer.ggml.pre → how text is cut before pairs are merged: a pattern, or whether each digit stands alone.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {"llama-bpe": _WORDS % "1,3", "llama3": _WORDS % "1,3", "qwen2": _WORDS % "1"}
_DIGITS_ALONE = {"smollm": True, "gpt-2": False}
CONTROL, USER_DEFINED = 3, 4


def tokenizer(header: Header) -> Any:
    """A `tokenizers.Tokenizer` of the file's own vocabulary; None for a kind that is not known here.

    Known are byte-level BPE vocabularies whose way of cutting text is in the tables above.
    """
    found = header.metadata
    tokens, merges = found.get("tokenizer.ggml.tokens"), found.get("tokenizer.ggml.merges")
    cut = str(found.get("tokenizer.ggml.pre", ""))
    if found.get("tokenizer.ggml.model") != "gpt2" or not tokens or not merges:
        return None
    if cut not in _PATTERNS and cut not in _DIGITS_ALONE:
        return None
    from tokenizers import AddedToken, Tokenizer, decoders, models

    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=cut in ("llama-bpe", "llama3")))
    made.pre_tokenizer = _pre_tokenizer(cut)
    made.decoder = decoders.ByteLevel()
    kinds = found.get("tokenizer.ggml.token_type") or ()
    named = list(zip(tokens, kinds, strict=False))
    made.add_special_tokens([AddedToken(token, normalized=False) for token, kind in named if kind == CONTROL])
    made.add_tokens([AddedToken(token, normalized=False) for token, kind in named if kind == USER_DEFINED])
    begin = found.get("tokenizer.ggml.bos_token_id")
    if found.get("tokenizer.ggml.add_bos_token") and begin is not None and begin < len(tokens):
        from tokenizers import processors

        word = tokens[begin]
        made.post_processor = processors.TemplateProcessing(single=f"{word} $A", special_tokens=[(word, begin)])
    return made


def _pre_tokenizer(cut: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    if cut in _PATTERNS:
        split = pre_tokenizers.Split(Regex(_PATTERNS[cut]), "isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if not _DIGITS_ALONE[cut]:
        return bytes_
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])


# Raised when the same file would give another tokenizer.
_RECIPE = 1


def is_of(base: Checkpoint, quantization: str) -> bool:
    """Whether the file is of that type; `gguf-q4` is the file as it was published, whatever its bits."""
    if quantization == "gguf-q4":
        return True
    return _header(base).file_type == DENSE.get(quantization, quantization.removeprefix("gguf-"))


def described(base: Checkpoint, cache: Cache) -> Checkpoint:
    """The checkpoint with its vocabulary, and with a tokenizer where its kind is known; the weights stay in place."""
    found = _header(base)
    return replace(base, vocab_size=found.vocab_size, side=_side(base, found, cache))


def _header(base: Checkpoint) -> Header:
    assert base.path is not None
    return header(gguf_file(base.path))


def _side(base: Checkpoint, found: Header, cache: Cache) -> Path | None:
    made = tokenizer(found)
    if made is None:
        return None
    key = {"kind": "tokenizer", "from": base.digest, "recipe": _RECIPE}

    def write(folder: Path, partial: Path) -> None:
        made.save(str(folder / "tokenizer.json"))

    stored = cache.entry(key) or cache.put(key, write, about={"source": base.source})
    return stored.folder
