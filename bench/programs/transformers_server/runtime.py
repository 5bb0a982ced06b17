"""The model in memory: loaded as asked, run one step at a time, and what it really became."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from . import loading
from .compiling import Compiler
from .events import Events

STATIC_TOKENS = 2048


class Runtime:
    """A causal language model, its tokenizer and its key-value caches.

    All of it lives on one thread: OpenMP keeps a pool of workers for each thread that calls it.
    """

    def __init__(self, args: argparse.Namespace, events: Events) -> None:
        self.args = args
        self.events = events
        with events.phase("device"):
            if args.threads:
                torch.set_num_threads(args.threads)
            found = "cuda" if torch.cuda.is_available() else "cpu"
            self.device = torch.device(found if args.device == "auto" else args.device)
            torch.zeros(1, device=self.device)
        with events.phase("tokenizer") as detail:
            self.tokenizer, detail["preloaded"] = loading.tokenizer(args.model)
        with events.phase("weights") as detail:
            self.model, detail["preloaded"] = loading.model(args.model, args.dtype, args.attention, self.device)
            detail["bytes"] = self.weight_bytes
        self.compiler = Compiler(args, events)
        self._forward = self.compiler.wrap(self.model.forward)
        config = self.model.config.get_text_config()
        longest = int(config.max_position_embeddings)
        self.static = args.cache_implementation == "static"
        self.max_tokens = min(args.max_model_len or longest, longest)
        if self.static:
            # A model's own limit may be a hundred thousand tokens, which is no size to allocate unasked.
            wanted = args.static_cache_tokens or args.max_model_len or STATIC_TOKENS
            self.max_tokens = min(wanted, self.max_tokens)
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        self.ends: tuple[int, ...] = tuple(ends) if isinstance(ends, list) else (ends,) if ends is not None else ()
        self.vocab_size = int(config.vocab_size)
        self._caches: list[Any] = []
        if self.static:
            self._allocate(config, args.max_num_seqs)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, with what the model wants at its beginning."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def template(self, messages: Any) -> list[int]:
        """Tokens of a conversation, with the opening of the answer."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def take_cache(self) -> Any:
        """A cache for one sequence: a fresh one that grows, or one of those allocated before ready."""
        if not self.static:
            return transformers.DynamicCache(config=self.model.config)
        return self._caches.pop()

    def give_back(self, cache: Any) -> None:
        """Return a sequence's cache."""
        if self.static:
            cache.reset()
            self._caches.append(cache)

    def forward(self, ids: Sequence[int], cache: Any, every: bool = False) -> torch.Tensor:
        """Run tokens behind those in the cache; the logits of the last one, or of every one, one row each."""
        with torch.no_grad():
            inputs = torch.tensor([ids], device=self.device)
            whole = self.args.compile_scope == "all"
            run = self._forward if len(ids) == 1 or whole else self.model.forward
            output = run(
                input_ids=inputs,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=0 if every else 1,
                attention_mask=self._mask(len(ids)) if self.static and self.args.compile and whole else None,
            )
            logits: torch.Tensor = output.logits[0]
            return logits

    def _mask(self, count: int) -> torch.Tensor | None:
        """The causal mask of a prompt over a static cache, which the model would otherwise derive from the cache's
        fill: a branch on data, at which a compiled graph breaks.
        """
        if count == 1:
            return None
        places = torch.arange(self.max_tokens, device=self.device)
        hidden = places[None] > places[:count, None]
        blank = torch.zeros(1, 1, count, self.max_tokens, dtype=self.model.dtype, device=self.device)
        return blank.masked_fill(hidden, torch.finfo(self.model.dtype).min)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights in memory, shared ones once."""
        tensors = {tensor.data_ptr(): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def facts(self) -> dict[str, Any]:
        """What is really used, not what was asked for."""
        config = self.model.config
        quantization = getattr(config, "quantization_config", None)
        method = getattr(quantization, "quant_method", None) or (quantization or {}).get("quant_method")
        dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in self.model.parameters()}
        cuda = self.device.type == "cuda"
        packed = any(not tensor.is_floating_point() for tensor in self.model.parameters())
        return {
            "engine": "transformers",
            "version": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "model_class": type(self.model).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "parameter_dtypes": sorted(dtypes),
            "parameters": sum(tensor.numel() for tensor in self.model.parameters()),
            "weight_bytes": self.weight_bytes,
            "quantization": str(getattr(method, "value", method)) if method else None,
            # Without a kernel for the format, Transformers unpacks the weights while it loads them.
            "packed": packed if method else None,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "device_used": self.device.type,
            "device_evidence": f"torch {torch.__version__} computes on {self.device}; "
            f"it is built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'no CUDA'}, "
            f"which is {'' if torch.cuda.is_available() else 'not '}available",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "attention": config._attn_implementation,
            "cache_implementation": self.args.cache_implementation,
            "max_model_len": self.max_tokens,
            "max_num_seqs": self.args.max_num_seqs,
            "scheduling": "interleaved",
            "compiled": self.args.compile,
            "compile_mode": self.args.compile_mode if self.args.compile else None,
            "compile_scope": self.args.compile_scope if self.args.compile else None,
        }

    def _allocate(self, config: Any, count: int) -> None:
        """Every static cache, with its pages really there: zeros alone would only be promised by the kernel."""
        with self.events.phase("static_cache", tokens=self.max_tokens, sequences=count) as detail:
            head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            for _ in range(count):
                cache = transformers.StaticCache(config=self.model.config, max_cache_len=self.max_tokens)
                cache.early_initialization(1, config.num_key_value_heads, head, self.model.dtype, self.device)
                for layer in cache.layers:
                    layer.keys.fill_(0)
                    layer.values.fill_(0)
                self._caches.append(cache)
            tensors = [part for cache in self._caches for layer in cache.layers for part in (layer.keys, layer.values)]
            detail["bytes"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def quiet() -> None:
    """No network, no progress bars."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.utils.logging.disable_progress_bar()
