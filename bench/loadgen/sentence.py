"""What a server said, in words that fit a table: its own sentence kept whole, bytes that make no sense shown."""

from __future__ import annotations

import json

# A server's sentence is kept whole up to this many characters, evidence of bad form up to so many bytes.
_SENTENCE, _EVIDENCE = 2000, 300


def said(body: bytes) -> str:
    """The server's own words about its error, as far as they can be found."""
    text = body.decode("utf-8", "replace").strip()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return _whole(text)
    for key in ("error", "message", "detail"):
        if isinstance(content, list) and len(content) == 1:
            content = content[0]
        if isinstance(content, dict) and content.get(key):
            content = content[key]
    return _whole(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))


def _whole(text: str) -> str:
    return text if len(text) <= _SENTENCE else f"{text[:_SENTENCE]} …"


def shown(evidence: bytes) -> str:
    """The beginning of bytes that are not what they should be."""
    text = evidence[:_EVIDENCE].decode("utf-8", "backslashreplace")
    return f"{text!r}{' …' if len(evidence) > _EVIDENCE else ''}"
