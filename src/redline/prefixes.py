"""What prompts have in common: the group of each request, and how much of its prompt it shares with that group."""

from __future__ import annotations

from hashlib import blake2b

from redline.model import Prefix


def group_of(prefix: Prefix, seed: int, i: int) -> int:
    """The group of request `i`: any is as likely, and depends on the seed and i alone."""
    drawn = int.from_bytes(blake2b(b"group %d:%d" % (seed, i), digest_size=8).digest())
    return drawn % prefix.groups


def shared(prefix: Prefix, length: int, tokens_each: float = 1.0) -> int:
    """How much at the start of a prompt of this length is its group's; in pieces of so many tokens, never all."""
    common = prefix.share * length if prefix.tokens is None else prefix.tokens / tokens_each
    return min(round(common), length - 1)
