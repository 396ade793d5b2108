"""What prompts have in common: the group of each request and how much it shares with that, or the blocks of a trace."""

from __future__ import annotations

from hashlib import blake2b

from redline import arrivals
from redline.model import Prefix, Workload

BLOCK_TOKENS = 512  # of a prompt, as Mooncake names them


def group_of(prefix: Prefix, seed: int, i: int) -> int:
    """The group of request `i`: any is as likely, and depends on the seed and i alone."""
    drawn = int.from_bytes(blake2b(b"group %d:%d" % (seed, i), digest_size=8).digest())
    return drawn % prefix.groups


def shared(prefix: Prefix, length: int, tokens_each: float = 1.0) -> int:
    """How much at the start of a prompt of this length is its group's; in pieces of so many tokens, never all."""
    common = prefix.share * length if prefix.tokens is None else prefix.tokens / tokens_each
    return min(round(common), length - 1)


def has_blocks(workload: Workload) -> bool:
    """Do prompts begin with the blocks that a trace names?"""
    return workload.trace is not None and workload.trace.has_blocks


def blocks_of(workload: Workload, seed: int, i: int) -> list[int]:
    """The blocks at the start of the prompt of request `i`: of one number, of one text. None where there are none.

    Each round through the trace has numbers of its own: that what was sent comes again is no property of the traffic.
    """
    trace = workload.trace
    if trace is None or not trace.has_blocks:
        return []
    lap, entry = divmod(arrivals.first_entry(trace, seed) + i, len(trace.times_s))
    before = 0 if workload.repeat else lap * len(trace.blocks)
    return [before + block for block in trace.blocks_of(entry)]
