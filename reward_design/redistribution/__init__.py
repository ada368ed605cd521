"""Rewards that come late, handed out over the steps that earned them: SPA and the return-decomposition family."""

from reward_design.redistribution.episodes import Episodes
from reward_design.redistribution.estimators import Estimator, mlp, recurrent, transformer
from reward_design.redistribution.features import flat_features, task_features
from reward_design.redistribution.grounding import changed, unless
from reward_design.redistribution.learning import Fit
from reward_design.redistribution.losses import Loss, equal_shares, randomised, squared_error
from reward_design.redistribution.methods import return_decomposition, rrd, rudder, spa
from reward_design.redistribution.redistributed import redistributed
from reward_design.redistribution.returns import CORRECTIONS, correct_return
from reward_design.redistribution.tasks import delayed_reward, hidden_reward
from reward_design.redistribution.uniform import ircr, smoothed_ircr

__all__ = [
    "CORRECTIONS",
    "Episodes",
    "Estimator",
    "Fit",
    "Loss",
    "changed",
    "correct_return",
    "delayed_reward",
    "equal_shares",
    "flat_features",
    "hidden_reward",
    "ircr",
    "mlp",
    "randomised",
    "recurrent",
    "redistributed",
    "return_decomposition",
    "rrd",
    "rudder",
    "smoothed_ircr",
    "spa",
    "squared_error",
    "task_features",
    "transformer",
    "unless",
]
