"""Honest rewards for ``cartpole``, in the manner of models: all must pass, and pay what the same Python pays here."""

LEGITIMATE = {
    "scalar": "def reward(obs):\n    return -jnp.abs(obs[2])\n",
    "constant": "def reward(obs):\n    return 1.0\n",
    "integer": "def reward(action):\n    return action\n",
    "boolean": "def reward(terminated):\n    return terminated\n",
    "all inputs": (
        "def reward(obs, action, next_obs, terminated, truncated, info):\n"
        "    return next_obs[0] - obs[0] + 0.1 * action - terminated + 0.5 * truncated\n"
    ),
    "components": (
        "import jax.numpy as jnp\n\ndef reward(next_obs, action):\n    x, _, theta, _ = next_obs\n"
        "    upright = jnp.exp(-jnp.square(theta) / 0.05)\n    centred = 1.0 - jnp.tanh(jnp.abs(x))\n"
        "    return upright + centred, {'upright': upright, 'centred': centred}\n"
    ),
    "raw components": "def reward(obs):\n    a = jnp.abs(obs[0])\n    return 2.0 * a, {'a': a}\n",
    "imports": "import jax\nfrom jax import lax, nn\nimport math\ndef reward(obs):\n    return lax.tanh(obs[0]) * math.pi\n",
    "typing": (
        "from typing import Dict, Tuple\n\ndef reward(obs: jax.Array, action: jax.Array) -> Tuple[jax.Array, Dict[str, "
        "jax.Array]]:\n    '''Says what it does.'''\n    r: jax.Array = obs[0] + action\n    return r, {'r': r}\n"
    ),
    "jit": "@jax.jit\ndef reward(obs):\n    return jnp.sum(obs)\n",
    "helper": "SCALE = 0.3\n\ndef bump(x, width=SCALE):\n    return jnp.exp(-(x / width) ** 2)\n\ndef reward(obs):\n    return bump(obs[2])\n",
    "lambda": "def reward(obs):\n    f = lambda x: jnp.where(x > 0, x, -x)\n    return sum(f(obs[i]) for i in range(4))\n",
    "partial": (
        "from functools import partial\ndef scaled(x, by):\n    return x * by\n"
        "def reward(obs):\n    return partial(scaled, by=2.0)(obs[1])\n"
    ),
    "norm": "def reward(obs, next_obs):\n    return jnp.linalg.norm(next_obs[:2]) - jnp.linalg.norm(obs[:2])\n",
    "dot": "def reward(obs):\n    w = jnp.array([0.1, -0.2, 0.3, 0.4])\n    return jnp.dot(w, obs) + obs @ w\n",
    "matrix": "def reward(obs):\n    Q = jnp.diag(jnp.array([1.0, 0.1, 1.0, 0.1]))\n    return -obs @ Q @ obs\n",
    "indexing": "def reward(obs, action):\n    return jnp.array([-1.0, 1.0])[action] * obs[2]\n",
    "at set": "def reward(obs):\n    z = jnp.zeros(4).at[1].set(obs[1]).at[::2].add(1.0)\n    return z.sum()\n",
    "one hot": "def reward(obs, action):\n    return jnp.sum(jax.nn.one_hot(action, 2) * obs[:2]) + nn_part(obs)\ndef nn_part(x):\n    return jax.nn.sigmoid(x[3])\n",
    "sort": "def reward(obs):\n    return jnp.sort(obs)[-1] - jnp.median(obs) + jnp.argmax(obs)\n",
    "fori": "def reward(obs):\n    return jax.lax.fori_loop(0, 10, lambda i, c: 0.5 * c + obs[i % 4], 0.0)\n",
    "scan": (
        "def reward(obs):\n    total, _ = jax.lax.scan(lambda c, x: (0.9 * c + jnp.tanh(x), None), 0.0, obs)\n"
        "    return total\n"
    ),
    "cond": "def reward(obs, action):\n    return jax.lax.cond(action == 1, lambda: obs[0], lambda: -obs[0])\n",
    "switch": "def reward(obs, action):\n    return jax.lax.switch(action, [lambda x: x[0], lambda x: x[1]], obs)\n",
    "python loop": "def reward(obs):\n    r = 0.0\n    for i, w in enumerate((0.1, 0.2)):\n        if i == 1:\n            continue\n        r += w * obs[i]\n    return r\n",
    "vmap and grad": "def reward(obs):\n    f = lambda x: jnp.tanh(x) ** 2\n    return jnp.sum(jax.vmap(jax.grad(f))(obs))\n",
    "select": "def reward(obs):\n    return jnp.select([obs[0] < -1, obs[0] > 1], [-1.0, 1.0], 0.0) + jnp.piecewise(obs[1], [obs[1] < 0], [0.0, 1.0])\n",
    "bits": "def reward(action, terminated, truncated):\n    return jnp.float32((action & 1) | (terminated ^ truncated)) + (action // 2) - (action % 2)\n",
    "clip": "def reward(obs):\n    return jnp.clip(jnp.log1p(jnp.abs(obs[1])), 0, 5) + jnp.sqrt(jnp.maximum(obs[0], 0.0))\n",
    "erf": "def reward(obs):\n    return jax.scipy.special.erf(obs[2]) + jnp.sinc(obs[0]) + jnp.arctan2(obs[1], 1.0 + obs[0] ** 2)\n",
    "half": "def reward(obs):\n    return jnp.sum(obs[::2].astype(jnp.bfloat16))\n",
    "tree": "def reward(obs):\n    parts = {'a': obs[0], 'b': (obs[1], obs[2])}\n    return sum(jax.tree.leaves(jax.tree.map(jnp.tanh, parts)))\n",
    "progress": (
        "def initial_memory():\n    return {'best': jnp.float32(0.0), 'steps': 0}\n\n"
        "def reward(next_obs, memory):\n    far = jnp.abs(next_obs[0])\n    best = jnp.maximum(memory['best'], far)\n"
        "    gain = best - memory['best']\n    late = -0.01 * memory['steps']\n"
        "    return gain + late, {'gain': gain, 'late': late}, {'best': best, 'steps': memory['steps'] + 1}\n"
    ),
    "visited": (
        "def initial_memory():\n    return jnp.zeros(16, bool)\n\ndef reward(next_obs, memory):\n"
        "    cell = jnp.clip((next_obs[0] + 2.4) * 3, 0, 15).astype(jnp.int32)\n"
        "    return jnp.where(memory[cell], 0.0, 1.0), memory.at[cell].set(True)\n"
    ),
    "only memory": "def initial_memory():\n    return (jnp.ones(()), jnp.zeros((), jnp.int32))\ndef reward(memory):\n    decay, n = memory\n    return decay, (0.5 * decay, n + 1)\n",
}
"""Sources by name."""
