"""The local, read-only page over a results folder: ``reward-design board FOLDER``.

``reading`` reads what other processes are writing, ``states`` says how far it is, ``pictures`` draws, ``panels`` puts a
page together, ``server`` shows it on this machine.
"""

from reward_design.experiments.dashboard.server import Board, board

__all__ = ["Board", "board"]
