"""Prompts by seed: any length in microseconds, and no two that begin alike."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

_TEXT = """
able about above across action after again air all almost along also always among animal answer any apple area arm art
ask away baby back ball bank base bear beat before begin behind best better between big bird black blue board boat
body bone book both box boy bread break bring brother brown build burn busy buy call camp capital car care carry case
cat catch cause center change check child city class clean clear climb close cloud coat cold color come common cook
cool corn corner cost count country course cover cow create cross cry cut dance dark day deal deep desk dinner doctor
dog door down draw dream dress drink drive drop dry duck early earth east easy eat edge egg eight end energy enjoy
enough even evening every eye face fact fall family farm fast father feel few field fight fill film final find fine
finger fire first fish five floor flower fly follow food foot force forest form four free fresh friend front fruit
full game garden gas gate gift girl give glass gold good grass great green ground group grow hair half hand happy hard
hat head hear heart heat heavy help high hill history hold home hope horse hot hour house hundred ice idea inside iron
island job join jump keep key kind king kitchen know lady lake land large last late laugh law lead leaf learn leave
left leg letter life light line lion list little live long love low machine make man map market matter meet milk mind
"""
_WORDS = _TEXT.split()  # common enough to be one token each in most vocabularies
_POOL = 65_536  # pieces of text from which every prompt is cut
_TWO_BYTES = struct.Struct("<8H")
_HEAD = 8  # pieces at the start that belong to one request alone


class Prompts:
    """Text that depends on (seed, i, length) alone.

    Each prompt opens with eight pieces drawn for this request, so that a prefix cache never matches, and goes on with a
    slice of one long text of this seed, since choosing every word anew would cost more than all else of a request.
    Prompts of fewer than about five pieces can be alike. Of one i, a shorter text is how a longer one begins.
    """

    def __init__(self, seed: int, ids: tuple[int, int] | None = None, words: Sequence[str] = ()) -> None:
        self._seed = seed
        self._ids, self._words = ids, words or _WORDS
        self.joint = "," if ids else " "
        rng = np.random.default_rng([0xB0, abs(seed)])
        picks = rng.integers(ids[0], ids[1], _POOL) if ids else rng.integers(0, len(self._words), _POOL)
        pieces = [str(pick) for pick in picks] if ids else [self._words[pick] for pick in picks]
        self._text = self.joint.join(pieces) + self.joint
        starts = np.concatenate([[0], np.cumsum([len(piece) + 1 for piece in pieces])])
        self._starts = array("i", starts.astype(np.int32).tobytes())

    def text(self, i: int, pieces: int) -> str:
        """`pieces` words, or token ids with commas between."""
        digest = blake2b(b"%d:%d" % (self._seed, i), digest_size=24).digest()
        head = self._head(digest)[:pieces]
        parts = [self.joint.join(head)]
        left, start = pieces - len(head), int.from_bytes(digest[16:20]) % _POOL
        while left > 0:
            end = min(start + left, _POOL)
            parts.append(self._text[self._starts[start] : self._starts[end] - 1])
            left, start = left - (end - start), 0
        return self.joint.join(parts)

    def opening(self, i: int) -> str:
        """Words that belong to request `i` alone."""
        return self.joint.join(self._head(blake2b(b"%d:%d" % (self._seed, i), digest_size=24).digest()))

    def _head(self, digest: bytes) -> list[str]:
        if self._ids is None:
            return [self._words[byte % len(self._words)] for byte in digest[:_HEAD]]
        low, high = self._ids
        return [str(low + drawn % (high - low)) for drawn in _TWO_BYTES.unpack_from(digest)]
