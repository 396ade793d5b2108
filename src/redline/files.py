"""What workloads take from files, as columns: a digest stands for the content.

Without columns where only a digest is known: of a stored experiment whose file is elsewhere.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Requests as they once came to a server, in order of time."""

    file: str
    sha256: str
    times_s: array[float] = field(
        default_factory=lambda: array("d"), compare=False, repr=False
    )  # since the first; any unit
    prompt_tokens: array[int] = field(
        default_factory=lambda: array("i"), compare=False, repr=False
    )  # none: not in the file
    output_tokens: array[int] = field(default_factory=lambda: array("i"), compare=False, repr=False)
    blocks: array[int] = field(
        default_factory=lambda: array("i"), compare=False, repr=False
    )  # of all prompts, one after the other: those of one number have the same text, and the same before it
    block_ends: array[int] = field(default_factory=lambda: array("q"), compare=False, repr=False)
    has_lengths: bool = True  # those of the file are used
    has_blocks: bool = False  # those of the file are used

    def blocks_of(self, entry: int) -> array[int]:
        """The blocks at the start of a prompt."""
        return self.blocks[self.block_ends[entry - 1] if entry else 0 : self.block_ends[entry]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Prompts that somebody wrote, in the order of their file."""

    file: str
    sha256: str
    prompts: bytes = field(default=b"", compare=False, repr=False)  # JSON of each: a text, or a list of messages
    prompt_ends: array[int] = field(default_factory=lambda: array("q"), compare=False, repr=False)
    fields: bytes = field(default=b"", compare=False, repr=False)  # JSON of what else each body holds; mostly nothing
    field_ends: array[int] = field(default_factory=lambda: array("q"), compare=False, repr=False)
    sizes: array[int] = field(default_factory=lambda: array("i"), compare=False, repr=False)  # bytes of text
    prompt_tokens: array[int] = field(
        default_factory=lambda: array("i"), hash=False, repr=False
    )  # none: estimated by the bytes; another tokenizer counts others in the same file
    output_tokens: array[int] = field(
        default_factory=lambda: array("i"), compare=False, repr=False
    )  # none: not in the file
    names: tuple[str, ...] = field(default=(), compare=False)  # of all that is in `fields`
    has_lengths: bool = True  # those of the file are used
    # How it is sent, which the session learns as it goes:
    order: int | None = None  # seed of the order; None: that of the trial
    first: int = 0  # so many were sent in this order before
    tokens_per_byte: float = 0.25
    most_tokens: int | None = None  # longer prompts are left out

    def prompt(self, entry: int) -> bytes:
        """JSON of the text, or of the list of messages."""
        return self.prompts[self.prompt_ends[entry - 1] if entry else 0 : self.prompt_ends[entry]]

    def own(self, entry: int) -> bytes:
        """JSON of an object with further fields of the body; empty where there are none."""
        return self.fields[self.field_ends[entry - 1] if entry else 0 : self.field_ends[entry]]

    def first_chat(self) -> int | None:
        """Which prompt, from 0, is a list of messages; None where all are texts."""
        return next((n for n in range(len(self.prompt_ends)) if self.prompt(n)[:1] == b"["), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Words that are one token each, by a tokenizer."""

    file: str
    sha256: str
    text: bytes = field(default=b"", compare=False, repr=False)  # a word a line

    @property
    def words(self) -> list[str]:
        return self.text.decode().split()
