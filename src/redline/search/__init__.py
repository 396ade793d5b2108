"""All evidence so far, and an SLA: the next measurement, or the answer."""

from redline.search.curve import is_look, listed_loads
from redline.search.evidence import seen
from redline.search.obstacles import budget_note
from redline.search.steps import answer_now, next_job, next_step

__all__ = ["answer_now", "budget_note", "is_look", "listed_loads", "next_job", "next_step", "seen"]
