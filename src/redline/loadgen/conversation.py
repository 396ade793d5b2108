"""Requests that repeat what was said before them: the prompts by the seed, and the answers as the server gave them."""

from __future__ import annotations

import orjson

from redline.loadgen.flights import Flight
from redline.loadgen.parse import Response
from redline.loadgen.payload import Payloads, Planned, fitting, room
from redline.talks import Size, Talks, recent
from redline.users import Turn


class Conversations:
    """The next request of each conversation. Answers are kept for as long as their conversation goes on."""

    def __init__(self, payloads: Payloads, seed: int) -> None:
        self._payloads, self._limit = payloads, payloads.shape.context_limit
        self._talks: Talks[bytes] = Talks(payloads.workload, seed, self._made_up)
        self._next = 0

    def plan(self, turn: Turn) -> Planned:
        """The request of this turn; the oldest turns are left out where all do not fit the server's context."""
        size, said = self._talks.ask(turn.user, turn.number)
        prompt, output = fitting(size.prompt, size.output, self._limit)
        kept = said[recent(said, int(room(prompt)) + output, self._limit) :]
        number = self._talks.number_of(turn.user, turn.number)
        messages = [*(text for text, _ in kept), self._payloads.user_message(number, prompt)]
        i, self._next = self._next, self._next + 1
        tokens_in = prompt + sum(tokens for _, tokens in kept)
        return self._payloads.conversation(i, b",".join(messages), tokens_in, output)

    def listen(self, flight: Flight) -> None:
        """Keep the text of its answer, unless it is the last one."""
        flight.response = Response(keep_text=self._talks.goes_on(flight.turn.user, flight.turn.number))

    def answered(self, flight: Flight, *, ok: bool) -> None:
        """It has ended."""
        turn, response = flight.turn, flight.response
        if not ok:
            self._talks.end(turn.user)
            return
        size, _ = self._talks.ask(turn.user, turn.number)
        number = self._talks.number_of(turn.user, turn.number)
        asked = self._payloads.user_message(number, fitting(size.prompt, size.output, self._limit)[0])
        tokens = response.tokens_out if response.tokens_out > 0 else response.events
        self._talks.answered(turn.user, turn.number, asked + b"," + _answer(response.text or ""), size.prompt + tokens)

    def _made_up(self, number: int, size: Size) -> bytes:
        prompt, output = fitting(size.prompt, size.output, self._limit)
        answer = self._payloads.words(-1 - number, output)
        return self._payloads.user_message(number, prompt) + b"," + _answer(answer)


def _answer(text: str) -> bytes:
    return b'{"role":"assistant","content":%s}' % orjson.dumps(text)
