"""Random prompts of an exact length: token ids from a model's vocabulary, or text that encodes to so many tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from bench.engines.engine import Checkpoint
from bench.errors import UsageError

# Common English words, each of them one token (with the space before it) in the vocabularies in use today.
_COMMON = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face level office door health person art war history party result change morning reason research girl "
    "guy moment air teacher force education small large new old high low great little good bad long short early late "
    "big young important public able white black red green hot cold open free full hard left real sure true whole"
)
WORDS = tuple(_COMMON.split())
# Where nothing says which ids are special: they sit at the bottom of a vocabulary, or at its top.
_BOTTOM, _TOP = 256, 2048
_UNKNOWN_SIZE = 4096 + _TOP
_DRAWS = 20


@dataclass(frozen=True)
class Vocabulary:
    """What a checkpoint says about its tokens. `size` counts ids from 0; `special` ones are never drawn."""

    size: int
    special: frozenset[int]
    tokenizer: Any = None

    def ids(self, length: int, draw: random.Random) -> list[int]:
        """So many random ids."""
        made: list[int] = []
        while len(made) < length:
            token = draw.randrange(self.size)
            if token not in self.special:
                made.append(token)
        return made

    def text(self, length: int, draw: random.Random, begun: str = "") -> str:
        """Text that encodes to exactly so many tokens, `begun` and those that the tokenizer adds itself included."""
        if self.tokenizer is None:
            words = begun.split()
            return " ".join([*words, *(draw.choice(WORDS) for _ in range(length - len(words)))])

        least = len(self.tokenizer.encode("").ids)
        if length <= least:
            raise UsageError(
                f"no text is {length} tokens long for this tokenizer, which adds {least} of its own",
                hint="ask for more tokens, or set `form: ids`",
            )
        for _ in range(_DRAWS):
            if (made := self._attempt(begun, length, least, draw)) is not None:
                return made
        raise UsageError(f"found no text of exactly {length} tokens for this tokenizer", hint="set `form: ids`")

    def _attempt(self, begun: str, length: int, least: int, draw: random.Random) -> str | None:
        """Words until there is enough, cut where the last token ends; a letter more where the count jumps."""
        words: list[str] = [begun] if begun else []
        while True:
            words += [draw.choice(WORDS) for _ in range(max(8, length - len(words), length // 8))]
            text = " ".join(words)
            encoded = self.tokenizer.encode(text)
            if len(encoded.ids) > length:
                break
        # Of the tokenizer's own tokens some stand in front and some behind.
        for behind in range(least + 1):
            end = encoded.offsets[length - 1 - behind][1]
            for cut, tail in product(range(end, max(end - 3, 0), -1), ("", ".", " a", "1")):
                if len(self.tokenizer.encode(text[:cut] + tail).ids) == length:
                    return text[:cut] + tail
        return None


def vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a checkpoint: from its tokenizer where there is one, guarded guesses where not."""
    if checkpoint.tokenizer is not None:
        return _from_tokenizer(checkpoint.tokenizer, checkpoint.tokenizer.stat().st_mtime_ns, checkpoint.vocab_size)
    size = checkpoint.vocab_size or _UNKNOWN_SIZE
    if size <= _BOTTOM + _TOP:
        return Vocabulary(size, frozenset())
    return Vocabulary(size - _TOP, frozenset(range(_BOTTOM)))


@lru_cache(maxsize=8)
def _from_tokenizer(file: Path, _changed: int, limit: int | None) -> Vocabulary:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        # The library raises plain Exception for whatever it does not understand.
        raise UsageError(f"{file}: not a tokenizer that can be read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = tokenizer.get_vocab_size()
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    return Vocabulary(min(size, limit or size), frozenset(special), tokenizer)
