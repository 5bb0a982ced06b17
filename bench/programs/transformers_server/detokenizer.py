"""From token ids to text, piece by piece, never half a character; and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Tokens of the prompt kept as context: some tokenizers drop the space before a text's first word.
_CONTEXT = 5
# A character has at most four bytes, so after this many tokens a broken one stays broken.
_PATIENCE = 4


class Detokenizer:
    """Text of a growing sequence. `push` gives what a token adds, which is nothing until its character is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(prompt[-_CONTEXT:])
        self._shown = len(self._ids)

    def push(self, token: int) -> str:
        """The text that this token completes."""
        self._ids.append(token)
        whole = self._decode(self._ids)
        if whole.endswith("\ufffd") and len(self._ids) - self._shown < _PATIENCE:
            return ""
        return self._take(whole)

    def flush(self) -> str:
        """The text held back so far, whole or not."""
        return self._take(self._decode(self._ids))

    def _take(self, whole: str) -> str:
        before = self._decode(self._ids[: self._shown])
        self._ids = self._ids[-_CONTEXT:]
        self._shown = len(self._ids)
        return whole[len(before) :]


class Stops:
    """Cuts a stream of text at the first stop string, and holds back what might be the beginning of one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(string for string in strings if string)
        self._held = ""

    def push(self, piece: str, last: bool = False) -> tuple[str, bool]:
        """The text that may be shown, and whether a stop string was met."""
        if not self._strings:
            return piece, False
        text = self._held + piece
        found = [place for place in (text.find(string) for string in self._strings) if place >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = 0 if last else max(_overlap(text, string) for string in self._strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text could begin the stop string."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
