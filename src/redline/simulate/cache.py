"""A prefix cache: blocks of prompts that were computed, the longest unused thrown out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK = 16  # tokens; vLLM's default


class PrefixCache:
    """A block is known by a number that stands for it and all before it; only whole blocks are kept."""

    def __init__(self, tokens: int) -> None:
        self._most = tokens // BLOCK
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.asked = self.found = 0  # tokens, since the start

    def look_up(self, blocks: Sequence[int], prompt: int) -> int:
        """How many tokens of a prompt need no computing: those of the blocks at its start that are held."""
        held = 0
        for block in blocks:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            held += 1
        tokens = min(held * BLOCK, prompt - 1)
        self.asked += prompt
        self.found += tokens
        return tokens

    def keep(self, blocks: Sequence[int]) -> None:
        """These were computed."""
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def reset(self) -> None:
        """Forget all blocks; the counts go on."""
        self._blocks.clear()


def blocks_of(pieces: Sequence[object]) -> tuple[int, ...]:
    """The whole blocks of a prompt of these tokens."""
    blocks, before = [], 0
    for end in range(BLOCK, len(pieces) + 1, BLOCK):
        before = hash((before, tuple(pieces[end - BLOCK : end])))
        blocks.append(before)
    return tuple(blocks)
