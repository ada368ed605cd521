"""How far apart rewards are, before anything is trained: STARC and its peers, regret, and what a difference is made of.

The distances take rewards as arrays ``[S, A, S]``; :func:`reward_table` makes them from any reward of kind POINTWISE::

    model = task("four_rooms").tabular()
    tables = reward_tables({"sparse": sparse, "shaped": shaped}, model)
    distances = distance_matrix(tables, model.transition, gamma=model.gamma)
"""

from reward_design.distance._reachable import reachable
from reward_design.distance.audits import audit
from reward_design.distance.canonicalisation import CANONICALISATIONS, canonicalise
from reward_design.distance.dard import dard_distance
from reward_design.distance.decompose import Decomposition, decompose_difference
from reward_design.distance.epic import epic_distance, epic_distance_matrix
from reward_design.distance.findings import Audit, Finding
from reward_design.distance.loops import Loop, best_loop
from reward_design.distance.minimal_potential import minimal_potential
from reward_design.distance.regret import policy_regret
from reward_design.distance.sampled import (
    SampledDistance,
    SampledDistances,
    sampled_distances,
    sampled_parts,
    sampled_starc,
)
from reward_design.distance.sampled_peers import sampled_dard, sampled_epic
from reward_design.distance.samples import Samples, recorded_samples, sample_functional, sample_tabular
from reward_design.distance.samples_mujoco import sample_mujoco
from reward_design.distance.srrd import srrd_distance
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
    "Audit",
    "Decomposition",
    "Finding",
    "Loop",
    "RegretBound",
    "SampledDistance",
    "SampledDistances",
    "Samples",
    "WorstCase",
    "audit",
    "best_loop",
    "canonicalise",
    "dard_distance",
    "decompose_difference",
    "distance_matrix",
    "epic_distance",
    "epic_distance_matrix",
    "minimal_potential",
    "policy_regret",
    "projected_angle",
    "reachable",
    "recorded_samples",
    "regret_bound",
    "reward_table",
    "reward_tables",
    "sample_functional",
    "sample_mujoco",
    "sample_tabular",
    "sampled_dard",
    "sampled_distances",
    "sampled_epic",
    "sampled_parts",
    "sampled_starc",
    "srrd_distance",
    "starc_distance",
    "worst_case_regret",
]
