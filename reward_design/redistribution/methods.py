"""The published methods, each an estimator, a loss and a correction."""

from collections.abc import Sequence

from reward_design._arguments import finite, whole_number, widths
from reward_design.core import Reward
from reward_design.redistribution import estimators, losses
from reward_design.redistribution.estimators import Estimator
from reward_design.redistribution.features import Features
from reward_design.redistribution.grounding import Grounding
from reward_design.redistribution.learning import Fit
from reward_design.redistribution.redistributed import redistributed
from reward_design.redistribution.returns import Correction

MODELS = ("mlp", "gru", "lstm", "transformer")


def spa(
    *,
    max_length: int,
    features: Features | None = None,
    model: str = "mlp",
    hidden: Sequence[int] = (64, 64),
    difference: bool = False,
    correction: Correction = "last",
    alpha: float | int = 1.0,
    valid: str | Grounding | None = None,
    beta: float | int = 0.5,
    mode: str = "penalty",
    discount_compensation: float | int | None = None,
    fit: Fit | None = None,
) -> Reward:
    """Stepwise progress attribution: r_t = α (c_t + e_t) + β g_t, with Σ_t c_t trained to be the episode's return R.

    R is the sum of the incoming reward over an episode, wherever in it it was paid, and none of it is paid again. The
    estimator learns beside the agent (ppo, dqn, sac, reinforce); until it explains held-out returns it is not used, and
    what is missing is paid as the correction says: in equal parts (``"equal"``) or at the end (the others). The metric
    ``reward/fallback`` says when.

    On-policy, each rollout is scored after the estimator has learned from it. An episode that a rollout cuts is paid
    c_t up to there, and the rest of what it is owed in the rollout in which it ends. Off-policy, rows are scored when
    they are sampled, with the estimator of that moment; what ``"last"`` owes at the end of an episode (and the memory
    of a recurrent estimator) is of the moment when the row was collected. An episode that is not finite is paid NaN,
    which agents report.

    Departures from the released script, which replaces c_t by a leave-one-out baseline, multiplies it by the number of
    remaining steps, always calls the last step valid, and recognises valid actions by one sentence of one environment:
    none of these are copied.

    Keeps the optimal policy: only if gamma is 1, or ``discount_compensation`` is the agent's gamma, the correction is
    ``"equal"`` or ``"last"``, and there is no grounding signal; with an imperfect estimator and ``"none"``: no.

    Args:
        max_length: longest episode in steps; a longer one is not learned from (metric ``reward/too_long``).
        features: ``transition [B] -> [B, F]``; by default (s, a, s' - s), flat. For discrete observations use
            :func:`task_features`.
        model: ``"mlp"`` reads the step alone, ``"gru"``, ``"lstm"`` and ``"transformer"`` the episode so far. The last
            prefix holds the whole episode, so these may put everything on the last step (``reward/last_step_share``),
            unless ``difference`` is set.
        hidden: widths of the mlp; the first is the width of the others.
        difference: c_t as the difference of predictions of R from one prefix to the next, which are also trained to
            be right early; needs a model with memory.
        correction: what is done with the error R - Σ c: ``"none"``, ``"equal"`` parts to all steps of the episode (kind
            TRAJECTORY, for agents that score whole rollouts), or all of it in the ``"last"``.
        alpha: weight of the contributions.
        valid: which actions count as valid: ``"change"`` (the observation changed), ``"mask"`` (the entry
            ``"action_mask"``), a function ``transition -> [B]`` bool (:func:`unless`, :func:`changed`), or None.
        beta: weight of the grounding signal, in the units of the reward.
        mode: ``"penalty"`` charges β for an invalid action; ``"bonus"``, as published, pays β for a valid one, which
            also pays for dithering: where the goal is 5 moves away, with 20 steps and gamma 0.99, the best policy takes
            19 with β = 0.05.
        discount_compensation: gamma of the agent. A reward that comes earlier is discounted less, so a redistribution
            prefers long episodes to what the task wants. With progress C_t = Σ_{k≤t} c_k the agent is paid
            gamma C_t - C_{t-1} (and c_T in the end): a potential, with the discounted return gamma^{T-1} R exactly.
        fit: how the estimator is trained.

    Returns:
        A :class:`reward_design.Reward` with a learner, of kind ``CAUSAL``, or ``TRAJECTORY`` for ``"equal"``. Terms:
        ``contribution``, ``correction`` and, where they are used, ``grounding`` and ``discount``.

    Raises:
        ValueError: for an unknown model, correction or mode, or a difference without memory.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import ppo
        >>> from reward_design.envs import task
        >>> from reward_design.redistribution import delayed_reward, spa
        >>> config = ppo.Config(total_timesteps=512, num_envs=4, num_steps=64)
        >>> result = ppo.train(config, delayed_reward(task("cartpole")), spa(max_length=500), jax.random.key(0))
        >>> result.metrics["reward/fallback"].shape
        (2,)

    Source: Wang, Leong, Wang, Wang and Li, "SPA-RL: Reinforcing LLM Agents via Stepwise Progress Attribution", 2025,
    arXiv:2505.20732.
    """
    estimator = _estimator(model, hidden, difference, max_length)
    loss = losses.squared_error(per_step=False, prediction=0.5 if difference else 0.0)
    return redistributed(
        "spa", estimator, loss, max_length=max_length, features=features, fit=fit, correction=correction, alpha=alpha,
        valid=valid, beta=beta, mode=mode, discount_compensation=discount_compensation,
    )  # fmt: skip


def return_decomposition(
    *,
    max_length: int,
    features: Features | None = None,
    model: str = "mlp",
    hidden: Sequence[int] = (64, 64),
    correction: Correction = "none",
    discount_compensation: float | int | None = None,
    fit: Fit | None = None,
) -> Reward:
    """Least squares: r_t = f(s_t, a_t, s_{t+1} - s_t) with min E ((R - Σ_t r_t) / T)².

    With ``model="transformer"`` f reads the episode so far through causal attention.

    Keeps the optimal policy: only if gamma is 1 (or compensated) and the correction is ``"equal"`` or ``"last"``.

    Args:
        max_length: longest episode in steps.
        features: what is read, see :func:`spa`.
        model: see :func:`spa`.
        hidden: see :func:`spa`.
        correction: see :func:`spa`; published without.
        discount_compensation: see :func:`spa`.
        fit: how the estimator is trained.

    Returns:
        A :class:`reward_design.Reward` with a learner.

    Example:
        >>> from reward_design.redistribution import return_decomposition
        >>> return_decomposition(max_length=200).kind.name
        'CAUSAL'

    Source: the baseline of Ren et al., 2021, arXiv:2111.13485; Efroni, Merlis and Mannor, "Reinforcement Learning with
    Trajectory Feedback", 2020, arXiv:2008.06036.
    """
    return redistributed(
        "return_decomposition", _estimator(model, hidden, False, max_length), losses.squared_error(per_step=True),
        max_length=max_length, features=features, fit=fit, correction=correction,
        discount_compensation=discount_compensation,
    )  # fmt: skip


def rrd(
    *,
    max_length: int,
    num_steps: int = 64,
    unbiased: bool = False,
    features: Features | None = None,
    hidden: Sequence[int] = (64, 64),
    correction: Correction = "none",
    discount_compensation: float | int | None = None,
    fit: Fit | None = None,
) -> Reward:
    """Randomised return decomposition: min E (R / T - mean_{t in I} r_t)² over random subsets I of K steps.

    An update costs K steps of each episode however long it is. The loss is that of :func:`return_decomposition` plus
    (1 - K / T) times the variance of the r_t over K, which favours equal rewards; ``unbiased`` takes that off again.

    Keeps the optimal policy: only if gamma is 1 (or compensated) and the correction is ``"equal"`` or ``"last"``.

    Args:
        max_length: longest episode in steps.
        num_steps: K; shorter episodes are drawn from with replacement.
        unbiased: subtract the sample's share of the variance.
        features: what is read, see :func:`spa`.
        hidden: widths of the tanh layers.
        correction: see :func:`spa`; published without.
        discount_compensation: see :func:`spa`.
        fit: how the estimator is trained.

    Returns:
        A :class:`reward_design.Reward` with a learner.

    Raises:
        ValueError: for fewer than 1 steps, or than 2 with ``unbiased``.

    Example:
        >>> from reward_design.redistribution import rrd
        >>> rrd(max_length=1000, num_steps=32).settings["loss"]
        'randomised'

    Source: Ren, Guo, Zhou and Peng, "Learning Long-Term Reward Redistribution via Randomized Return Decomposition",
    2021, arXiv:2111.13485.
    """
    whole_number("num_steps", num_steps, least=2 if unbiased else 1)
    return redistributed(
        "rrd", estimators.mlp(widths("hidden", hidden)), losses.randomised(num_steps, unbiased=unbiased),
        max_length=max_length, features=features, fit=fit, correction=correction,
        discount_compensation=discount_compensation,
    )  # fmt: skip


def rudder(
    *,
    max_length: int,
    features: Features | None = None,
    width: int = 64,
    prediction: float | int = 0.5,
    correction: Correction = "equal",
    discount_compensation: float | int | None = None,
    fit: Fit | None = None,
) -> Reward:
    """RUDDER: r_t = g(h_t) - g(h_{t-1}), the change that a step makes to an LSTM's prediction of the return.

    The first step earns the first prediction, the error of the last is handed out in equal parts. The lessons of the
    paper, episodes drawn by the error of their return and not all alike, are ``fit=Fit(lessons=True)``.

    Keeps the optimal policy: only if gamma is 1 (or compensated) and the correction is ``"equal"`` or ``"last"``.

    Args:
        max_length: longest episode in steps.
        features: what is read, see :func:`spa`; differences of states keep the last from explaining everything.
        width: of the hidden state.
        prediction: weight of the auxiliary task, mean_t (g(h_t) - R)².
        correction: see :func:`spa`.
        discount_compensation: see :func:`spa`.
        fit: how the estimator is trained.

    Returns:
        A :class:`reward_design.Reward` with a learner.

    Example:
        >>> from reward_design.redistribution import rudder
        >>> rudder(max_length=200).settings["estimator"]
        'lstm_difference'

    Source: Arjona-Medina, Gillhofer, Widrich, Unterthiner, Brandstetter and Hochreiter, "RUDDER: Return Decomposition
    for Delayed Rewards", 2018, arXiv:1806.07857.
    """
    whole_number("width", width, least=1)
    finite("prediction", prediction, least=0)
    return redistributed(
        "rudder", estimators.recurrent("lstm", width=width, difference=True),
        losses.squared_error(per_step=False, prediction=prediction), max_length=max_length, features=features, fit=fit,
        correction=correction, discount_compensation=discount_compensation,
    )  # fmt: skip


def _estimator(model: str, hidden: Sequence[int], difference: bool, max_length: int) -> Estimator:
    if model not in MODELS:
        raise ValueError(f"model must be 'mlp', 'gru', 'lstm' or 'transformer', got {model!r}.")
    whole_number("max_length", max_length, least=1)
    hidden = widths("hidden", hidden, least=0 if model == "mlp" else 1)
    if model == "mlp":
        if difference:
            raise ValueError("difference needs a model with memory ('gru', 'lstm' or 'transformer'), got 'mlp'.")
        return estimators.mlp(hidden)
    if model == "transformer":
        return estimators.transformer(max_length, width=hidden[0], difference=difference)
    return estimators.recurrent(model, width=hidden[0], difference=difference)
