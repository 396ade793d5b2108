"""Which words are one token each: prompts made of them are as long as asked for, to the token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from redline.model import UsageError

Count: TypeAlias = Callable[[Sequence[str]], Sequence[int]]
"""Tokens of each text."""

_LEAST, _MOST = 16, 4_096  # words: enough that no two prompts begin alike, and no more than help
_SHORTEST = 2  # letters
_MARKS = "Ġ▁"  # how vocabularies write the blank before a word


def whole_words(pieces: Iterable[str], count: Count) -> tuple[str, ...]:
    """Of the pieces of a vocabulary, in its order, the words that are one token wherever they stand.

    UsageError where there are too few, or where neighbours merge into other tokens.
    """
    names = dict.fromkeys(piece.lstrip(_MARKS) for piece in pieces)
    words = [name for name in names if name.isascii() and name.isalpha() and name.islower() and len(name) >= _SHORTEST]
    words = _those_of(1, words, words, count)
    if words:
        words = _those_of(2, words, [f"{words[0]} {word}" for word in words], count)[:_MOST]
    if len(words) < _LEAST:
        raise UsageError(
            f"only {len(words)} lower-case words are a token each, and prompts need {_LEAST}: leave tokenizer out, "
            "and lengths are learnt from what the server counts"
        )
    if (together := count([" ".join(words)])[0]) != len(words):
        raise UsageError(
            f"{len(words):,} words of a token each are {together:,} tokens together: leave tokenizer out, and lengths "
            "are learnt from what the server counts"
        )
    return tuple(words)


def _those_of(tokens: int, words: Sequence[str], texts: Sequence[str], count: Count) -> list[str]:
    return [word for word, found in zip(words, count(texts), strict=True) if found == tokens]
