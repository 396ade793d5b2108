"""Exact token counts, by a tokenizer.json and the package `tokenizers`, which only this module talks to."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redline.model import UsageError

_AT_ONCE = 1_024  # texts


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """One that is read."""

    _inner: Any

    @property
    def pieces(self) -> list[str]:
        """Its vocabulary, in the order of the ids."""
        ids: dict[str, int] = self._inner.get_vocab()
        return sorted(ids, key=ids.__getitem__)

    def count(self, texts: Sequence[str]) -> array[int]:
        """Tokens of each text; special tokens, which the server adds, do not count."""
        counts = array("i")
        for start in range(0, len(texts), _AT_ONCE):
            encoded = self._inner.encode_batch(list(texts[start : start + _AT_ONCE]), add_special_tokens=False)
            counts.extend(len(each.ids) for each in encoded)
        return counts


def tokenizer_of(text: str) -> Tokenizer:
    """The tokenizer that the text of a tokenizer.json describes."""
    try:
        import tokenizers
    except ImportError as error:
        raise UsageError(
            "exact counts need the package tokenizers, which is not installed: pip install 'redline[tokenizers]', or "
            "leave tokenizer out, and lengths are learnt from what the server counts"
        ) from error
    try:
        inner = tokenizers.Tokenizer.from_str(text)
    except Exception as error:
        raise UsageError(f"is no tokenizer.json: {error}; take the one that lies beside the model's weights") from error
    inner.no_truncation()
    inner.no_padding()
    return Tokenizer(inner)
