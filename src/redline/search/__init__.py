"""All evidence so far, and an SLA: the next measurement, or the answer."""

from redline.search.evidence import seen
from redline.search.obstacles import budget_note
from redline.search.steps import answer_now, next_job, next_step

__all__ = ["answer_now", "budget_note", "next_job", "next_step", "seen"]
