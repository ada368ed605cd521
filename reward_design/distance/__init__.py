"""How far apart rewards are, before anything is trained: STARC and its peers, regret, and what a difference is made of.

The distances take rewards as arrays ``[S, A, S]``; :func:`reward_table` makes them from any reward of kind POINTWISE::

    model = task("four_rooms").tabular()
    tables = reward_tables({"sparse": sparse, "shaped": shaped}, model)
    distances = distance_matrix(tables, model.transition, gamma=model.gamma)
"""

from reward_design.distance._reachable import reachable
from reward_design.distance.canonicalisation import CANONICALISATIONS, canonicalise
from reward_design.distance.dard import dard_distance
from reward_design.distance.decompose import Decomposition, decompose_difference
from reward_design.distance.epic import epic_distance, epic_distance_matrix
from reward_design.distance.regret import policy_regret
from reward_design.distance.starc import distance_matrix, starc_distance
from reward_design.distance.worst_case import (
    RegretBound,
    WorstCase,
    projected_angle,
    regret_bound,
    worst_case_regret,
)
from reward_design.envs.tables import reward_table, reward_tables

__all__ = [
    "CANONICALISATIONS",
    "Decomposition",
    "RegretBound",
    "WorstCase",
    "canonicalise",
    "dard_distance",
    "decompose_difference",
    "distance_matrix",
    "epic_distance",
    "epic_distance_matrix",
    "policy_regret",
    "projected_angle",
    "reachable",
    "regret_bound",
    "reward_table",
    "reward_tables",
    "starc_distance",
    "worst_case_regret",
]
