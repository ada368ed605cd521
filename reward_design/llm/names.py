"""What the language of rewards consists of, and what to say about the rest."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _each(text: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(text.split(), reason)


NODES = _words(
    """
    Module FunctionDef Lambda arguments arg Return Assign AugAssign AnnAssign Expr Pass If IfExp For Break Continue
    Import ImportFrom alias BoolOp BinOp UnaryOp Compare Call keyword Constant Attribute Subscript Slice Starred Name
    List Tuple Dict Set ListComp DictComp SetComp GeneratorExp comprehension NamedExpr Load Store And Or Add Sub Mult
    Div Mod Pow FloorDiv MatMult LShift RShift BitOr BitXor BitAnd Invert Not UAdd USub Eq NotEq Lt LtE Gt GtE Is IsNot
    In NotIn
    """
)
"""Kinds of nodes of Python's syntax tree."""
BUILTINS = _words(
    "abs all any bool dict divmod enumerate filter float int isinstance len list map max min pow range reversed round "
    "set sorted str sum tuple zip True False None"
)
"""Built-in functions at hand."""
IMPORTS = _words("jax jax.numpy jax.lax jax.nn math functools typing")
JAX = _words("numpy lax nn scipy vmap jit tree tree_util grad value_and_grad Array")
LINALG = ("norm", "vector_norm", "cross", "outer", "matmul", "tensordot", "vecdot", "trace", "diagonal", "multi_dot")
_FILES = "a reward reads and writes no files; put constants into the code"
_SUMS = "write it with sums and products"
NOT_IN_JNP = {
    **_each("load save savez fromfile memmap", _FILES),
    **_each("from_dlpack frombuffer frompyfunc fromstring", "use jnp.array"),
    **_each("printoptions set_printoptions get_printoptions array_repr array_str", "a reward makes no text"),
    **_each("roots poly polyfit fft", _SUMS),
}
_ALONE = "a reward sees one transition and no other device"
_RANDOM = "a reward has no random numbers"
NOT_IN_LAX = {
    "while_loop": "use lax.fori_loop with constant bounds, or lax.scan",
    "infeed": "a reward reads its inputs only",
    "outfeed": "a reward returns its outputs only",
    **_each("rng_uniform rng_bit_generator", _RANDOM),
    **_each("custom_root custom_linear_solve linalg fft", _SUMS),
    **_each("psum pmean pmax pmin ppermute pshuffle pswapaxes all_gather all_to_all axis_index axis_size", _ALONE),
}
_PYTHON = "a reward does not look into Python"
METHODS = {
    **_each("format format_map encode decode join", "a reward makes no text"),
    **_each("tofile dump dumps tobytes memmap", _FILES),
    **_each("block_until_ready addressable_data device devices copy_to_host_async item tolist", "keep jnp arrays"),
    **_each("mro gi_frame gi_code gi_yieldfrom cr_frame cr_await ag_frame tb_frame tb_next tb_lasti", _PYTHON),
    **_each("f_back f_builtins f_code f_globals f_locals func_globals func_code co_code with_traceback obj", _PYTHON),
    **_each("lower trace eval_shape clear_cache clear_caches", "a reward is compiled for you"),
}
"""Attributes of values that are refused, and why. The trace of a matrix is ``jnp.trace``."""
_ASYNC = "a reward is not asynchronous; write plain functions and loops."
_TRY = "a reward has no try; guard values with jnp.where."
_FORMAT = "formatted text has no place in a reward; remove it."
_ONCE = "a reward returns once; use return."
REASONS = {
    "While": "use lax.fori_loop with constant bounds, or lax.scan, instead of while.",
    "ClassDef": "a reward has no classes; write functions.",
    **_each("AsyncFunctionDef Await AsyncFor AsyncWith", _ASYNC),
    "With": "a reward has no with; remove it.",
    **_each("Try TryStar", _TRY),
    "Raise": "a reward raises nothing; return a value for every input.",
    "Assert": "a reward asserts nothing; return a value for every input.",
    "Global": "a reward has no global state; use memory.",
    "Nonlocal": "a reward has no shared state; return values, or use memory.",
    "Delete": "a reward deletes nothing; remove del.",
    **_each("Yield YieldFrom", _ONCE),
    **_each("JoinedStr FormattedValue", _FORMAT),
    "Match": "use jnp.where or jnp.select instead of match.",
    "print": "remove it, a reward prints nothing",
    "input": "a reward reads its inputs only",
    "open": _FILES,
    **_each("eval exec compile", "write the code itself"),
    **_each("getattr setattr delattr hasattr globals locals vars dir type object super id hash", _PYTHON),
    **_each("memoryview bytes bytearray iter next callable classmethod staticmethod property", _PYTHON),
    **_each("breakpoint exit quit help", "a reward returns and does nothing else"),
    **_each("random time os sys", "a reward depends on its inputs only"),
}
"""What to say instead of the general message, by kind of node or name."""
