"""What one trial says about one SLA: is it usable, is it over, does it pass."""

from redline.verdict.client import usable
from redline.verdict.exact import CriterionJudgement, Judgement, judge, steady, summary
from redline.verdict.watch import watcher

__all__ = ["CriterionJudgement", "Judgement", "judge", "steady", "summary", "usable", "watcher"]
