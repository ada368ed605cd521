"""Designers: searches for a reward with a language model, and the published systems as presets of one loop."""

from reward_design.llm.designers.candidates import Candidate, Fitness, Refusal, Statistics
from reward_design.llm.designers.presets import PRESETS
from reward_design.llm.designers.search import DesignResult, Event, design
from reward_design.llm.designers.session import Parts, Prompt, Session

__all__ = [
    "PRESETS",
    "Candidate",
    "DesignResult",
    "Event",
    "Fitness",
    "Parts",
    "Prompt",
    "Refusal",
    "Session",
    "Statistics",
    "design",
]
