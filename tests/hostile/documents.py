"""Broken documents in the language terms, each to be refused at stage ``terms``, and some that must pass."""

import json

GOOD = {"factor": "tilt", "shape": "exp", "direction": "decrease", "weight": 1.0, "scale": 0.1}


def document(**changes):
    """A document of one term with entries changed; None takes an entry away."""
    return json.dumps({"terms": [{k: v for k, v in {**GOOD, **changes}.items() if v is not None}]})


BROKEN = [
    "",
    "null",
    "[]",
    "3",
    '"terms"',
    "{}",
    "def reward(obs): return 0",
    '{"terms": []}',
    '{"terms": {}}',
    '{"terms": "all"}',
    '{"terms": [1]}',
    '{"terms": [[]]}',
    '{"terms": [{}]}',
    '{"terms": [' + ",".join(json.dumps({**GOOD, "weight": i + 1}) for i in range(17)) + "]}",
    '{"terms": [' + json.dumps(GOOD) + "," + json.dumps(GOOD) + "]}",
    '{"terms": [' + json.dumps(GOOD) + '], "code": "import os"}',
    '{"terms": [' + json.dumps(GOOD) + '], "terms": []}',
    "```json\n" + json.dumps({"terms": [GOOD]}) + "\n```",
    json.dumps({"terms": [GOOD]})[:-3],
    json.dumps({"terms": [GOOD]}) + " trailing",
    "{'terms': []}",
    document(factor="tillt"),
    document(factor=None),
    document(factor=3),
    document(factor=["tilt"]),
    document(factor="__class__"),
    document(factor="tilt; import os"),
    document(shape="cubic"),
    document(shape=None),
    document(direction="up"),
    document(direction=1),
    document(direction=None),
    document(weight=None),
    document(weight="1.0"),
    document(weight=True),
    document(weight=0),
    document(weight=1e9),
    document(weight=[1]),
    document(scale=0),
    document(scale=-1.0),
    document(scale=1e-12),
    document(scale="big"),
    document(bonus=1),
    document(weight=12345.0).replace("12345.0", "NaN"),
    document(weight=12345.0).replace("12345.0", "Infinity"),
    document(weight=12345.0).replace("12345.0", "-Infinity"),
    document(weight=12345.0).replace("12345.0", "1e999"),
    document(weight=12345.0).replace("12345.0", "9" * 6000),
    document(weight=12345.0).replace("12345.0", "0x10"),
    "[" * 5000 + "]" * 5000,
    '{"terms": ' * 4000,
    '{"plan": "' + "x" * 30_000 + '", "terms": []}',
    "\x00",
]
PASSING = [
    document(),
    document(scale=None),
    document(shape="threshold", scale=-0.5),
    json.dumps({"plan": "stay upright", "terms": [GOOD, {**GOOD, "shape": "progress"}, {**GOOD, "factor": "fall"}]}),
]
