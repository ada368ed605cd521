"""Steps of a game, and what was achieved in each."""

from reward_design.llm.annotate_steps import Step

KEY = Step(". @ (", ". . @", "", "g - a key named The Master Key.", "PICKUP", frozenset({"picked_up", "message"}))
DOOR = Step("+ @ .", "- @ .", "", "Never mind.", "APPLY", frozenset({"door_opened", "door_unlocked"}))
NOTHING = Step(". @ .", ". . @", "", "", "E", frozenset())
STEPS = [KEY, DOOR, NOTHING, NOTHING]
