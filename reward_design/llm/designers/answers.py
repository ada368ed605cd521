"""A candidate in the text of an answer."""

import re

FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)
_HEAD = re.compile(r"^def reward\(([^()]*)\)[^:\n]*:", re.MULTILINE)


def source_of(text: str, language: str) -> str | None:
    r"""The candidate in an answer, None if there is none.

    Code is the last fenced block that defines ``reward``, an unclosed one included, or everything from the first line
    that looks like code. Terms are the whole answer, or a fenced block, or what stands between the outermost braces.

    Example:
        >>> print(source_of("Here it is:\n```python\ndef reward(obs):\n    return 0.0\n```", "code"))
        def reward(obs):
            return 0.0
        >>> source_of("I cannot do that.", "code") is None
        True
        >>> source_of('Sure: {"terms": []}', "terms")
        '{"terms": []}'
    """
    blocks = [body for _, body in FENCE.findall(text)]
    if language == "terms":
        whole = blocks[-1] if blocks else text
        first, last = whole.find("{"), whole.rfind("}")
        return whole[first : last + 1] if 0 <= first < last else None
    found = [body for body in blocks if "def reward" in body]
    if found:
        return found[-1].strip()
    start = re.search(r"^(def |import |from )", text, re.MULTILINE)
    return text[start.start() :].strip() if start and "def reward" in text[start.start() :] else None


def sign_scaled(source: str) -> str:
    r"""Auto MC-Reward's scaling around a program: r = sgn(sparse) + 0.1 sgn(dense).

    The program must define ``def reward(<plain names>)`` and return ``(reward, {"sparse": ..., "dense": ...})``, with
    new memory where it has one. It is renamed, and a ``reward`` with the same parameters is added that calls it; the
    result goes through all checks as it is.

    Args:
        source: the program of a model; text that is no such program comes back unchanged, for the checks to refuse.

    Source: Li et al., "Auto MC-Reward", CVPR 2024, arXiv 2312.09238.

    Example:
        >>> print(sign_scaled("def reward(obs):\n    return obs, {'sparse': obs, 'dense': -obs}").splitlines()[-3])
            signs = {"sparse": jnp.sign(parts["sparse"]), "dense": 0.1 * jnp.sign(parts["dense"])}
    """
    head = _HEAD.search(source)
    if head is None or "designed_reward" in source:
        return source
    names = [part.partition(":")[0].partition("=")[0].strip() for part in head[1].split(",") if part.strip()]
    renamed = source[: head.start()] + source[head.start() :].replace("def reward(", "def designed_reward(", 1)
    rest = ", result[2]" if "memory" in names else ""
    return (
        f"{renamed.rstrip()}\n\n\n"
        f"def reward({', '.join(names)}):\n"
        f"    result = designed_reward({', '.join(names)})\n"
        "    parts = result[1]\n"
        '    signs = {"sparse": jnp.sign(parts["sparse"]), "dense": 0.1 * jnp.sign(parts["dense"])}\n'
        "    signs = {name: jnp.asarray(value, jnp.float32) for name, value in signs.items()}\n"
        f'    return signs["sparse"] + signs["dense"], signs{rest}\n'
    )
