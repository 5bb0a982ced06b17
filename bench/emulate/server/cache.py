"""What a simulated server remembers of earlier prompts and answers. Standard library only."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence


class PrefixCache:
    """Token sequences by their beginnings, in whole blocks, as engines keep them: 16 tokens in vLLM, 1 in SGLang."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def cached(self, tokens: Sequence[Hashable], block: int) -> int:
        """How many of the first tokens are known already; never all of them, since one has to be computed."""
        known = 0
        for end, beginning in _beginnings(tokens, block):
            if end == len(tokens) or beginning not in self._seen:
                break
            known = end
        return known

    def keep(self, tokens: Sequence[Hashable], block: int) -> None:
        """Remember a prompt, or a prompt with its answer."""
        self._seen.update(beginning for _, beginning in _beginnings(tokens, block))


def _beginnings(tokens: Sequence[Hashable], block: int) -> Iterator[tuple[int, int]]:
    """Where each whole block ends, and a digest of all that stands before that end."""
    digest = block
    for end in range(block, len(tokens) + 1, block):
        digest = hash((digest, *tokens[end - block : end]))
        yield end, digest
