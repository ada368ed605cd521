"""Rewards inside other people's loops; no reward logic here.

- :mod:`reward_design.adapters.gymnasium`: ``RewardWrapper`` and ``VectorRewardWrapper``.
- :mod:`reward_design.adapters.sb3`: ``VecRewardWrapper`` (needs the extra ``sb3``).
- :mod:`reward_design.adapters.functional`: ``RewardEnv`` for JAX loops and ``score`` for recorded data.

The same episodes give the same rewards through each of them.
"""
