"""Conversations with the simulated server: of what was said only the number of tokens matters."""

from __future__ import annotations

from redline.model import Workload
from redline.talks import Talks, recent
from redline.users import Turn

_FAR = 1_000_000_007  # between the names of a conversation that has lost its oldest turns, and more of them


class Conversations:
    """How long each request is, with what was said before it as far as that fits the `context`."""

    def __init__(self, workload: Workload, seed: int, context: int) -> None:
        self._talks: Talks[None] = Talks(workload, seed, lambda *_: None)
        self._context = context

    def tokens(self, turn: Turn) -> tuple[int, int, int]:
        """Of the prompt, and asked for; a name for all prompts that begin as this one does."""
        (prompt, asked), said = self._talks.ask(turn.user, turn.number)
        first = recent(said, prompt + asked, self._context)
        return prompt + sum(tokens for _, tokens in said[first:]), asked, turn.user + first * _FAR

    def answered(self, turn: Turn, tokens_out: int) -> None:
        """It went well."""
        (prompt, _), _ = self._talks.ask(turn.user, turn.number)
        self._talks.answered(turn.user, turn.number, None, prompt + tokens_out)

    def broken_off(self, turn: Turn) -> None:
        """It failed."""
        self._talks.end(turn.user)
