"""Rewards from preferences: rank what matters instead of weighing it, or ask a person which of two clips is better."""

from reward_design.preferences.baselines import factor_sum
from reward_design.preferences.clips import Clip, record_clips
from reward_design.preferences.factors import Factor, task_factors
from reward_design.preferences.learning import Config as PreferenceConfig
from reward_design.preferences.model import RewardNetwork, bradley_terry, preference_loss, space_inputs
from reward_design.preferences.person import Questionnaire, learn_from_answers
from reward_design.preferences.ranking import (
    StarvedLevelsWarning,
    Verdict,
    compare_ranked,
    cycle_rate,
    decide,
    level_shares,
    warn_if_starved,
)
from reward_design.preferences.rewards import heron, preference_reward
from reward_design.preferences.scores import bradley_terry_scores
from reward_design.preferences.server import PreferencePage
from reward_design.preferences.teachers import PRESETS, Teacher, ranked_teacher, synthetic_teacher
from reward_design.preferences.widget import preference_widget

__all__ = [
    "PRESETS",
    "Clip",
    "Factor",
    "PreferenceConfig",
    "PreferencePage",
    "Questionnaire",
    "RewardNetwork",
    "StarvedLevelsWarning",
    "Teacher",
    "Verdict",
    "bradley_terry",
    "bradley_terry_scores",
    "compare_ranked",
    "cycle_rate",
    "decide",
    "factor_sum",
    "heron",
    "learn_from_answers",
    "level_shares",
    "preference_loss",
    "preference_reward",
    "preference_widget",
    "ranked_teacher",
    "record_clips",
    "space_inputs",
    "synthetic_teacher",
    "task_factors",
    "warn_if_starved",
]
