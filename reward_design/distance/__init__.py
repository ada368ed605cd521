"""How far apart rewards are, before anything is trained: STARC and EPIC distances, and regret.

The distances take rewards as arrays ``[S, A, S]``; :func:`reward_table` makes them from any reward of kind POINTWISE::

    model = task("four_rooms").tabular()
    tables = reward_tables({"sparse": sparse, "shaped": shaped}, model)
    distances = distance_matrix(tables, model.transition, gamma=model.gamma)
"""

from reward_design.distance.epic import epic_distance, epic_distance_matrix
from reward_design.distance.regret import policy_regret
from reward_design.distance.starc import CANONICALISATIONS, distance_matrix, starc_distance, val_canonicalisation
from reward_design.envs.tables import reward_table, reward_tables

__all__ = [
    "CANONICALISATIONS",
    "distance_matrix",
    "epic_distance",
    "epic_distance_matrix",
    "policy_regret",
    "reward_table",
    "reward_tables",
    "starc_distance",
    "val_canonicalisation",
]
