"""Programs that no honest worker sends: exported here with JAX itself, for an artifact whose hash is right."""

import dataclasses
import functools

import jax
import jax.extend.mlir
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.interpreters import mlir

LANES = export.symbolic_shape("b")[0]


def forged(fn, *, shapes=((4,),), dtypes=("float32",), disabled=(), order=1, platforms=("cpu", "cuda")):
    """``fn`` of ``[B, ...]`` arrays as a serialised program."""
    avals = [jax.ShapeDtypeStruct((LANES, *shape), dtype) for shape, dtype in zip(shapes, dtypes)]
    made = export.export(jax.jit(fn), platforms=platforms, disabled_checks=disabled)(*avals)
    return bytes(made.serialize(vjp_order=order))


def opaque(fn):
    """``fn`` with a derivative of zero, for programs that have none."""
    wrapped = jax.custom_vjp(fn)
    wrapped.defvjp(lambda x: (fn(x), x), lambda x, given: (jnp.zeros_like(x),))
    return wrapped


def total(obs):
    """Harmless."""
    return (obs.sum(axis=1),)


def with_call_of_library(obs):
    values = jnp.linalg.eigvalsh(obs[:, :, None] * obs[:, None, :])
    return (values[:, 0],)


def calling(target):
    """The harmless program with the target of its custom call exchanged in the exported module itself."""
    return edited(lambda text: text.replace("@shape_assertion", f"@{target}"))


def nesting():
    """The harmless program with a second program inside, whose functions could stand for those of the first."""
    inner = "module @inner { func.func @f(%x: tensor<f32>) -> tensor<f32> { return %x : tensor<f32> } }"
    return edited(lambda text: text.replace("  func.func public @main", f"  {inner}\n  func.func public @main", 1))


def edited(change):
    """The harmless program with a change of its text."""
    avals = [jax.ShapeDtypeStruct((LANES, 4), "float32"), jax.ShapeDtypeStruct((LANES, 4), "float32")]
    made = export.export(jax.jit(lambda x, y: (x.sum(axis=1) + y[:, 0],)), platforms=("cpu",))(*avals)
    with mlir.make_ir_context():
        text = change(made.mlir_module())
        assert text != made.mlir_module()
        module = mlir.module_to_bytecode(mlir.ir.Module.parse(text))
    version = made.mlir_module_serialized[:64].split(b"StableHLO_v")[1].split(b"\x00")[0].decode()
    changed = jax.extend.mlir.serialize_portable_artifact(module, version)
    return bytes(dataclasses.replace(made, mlir_module_serialized=changed).serialize(vjp_order=1))


def with_endless_loop(obs):
    return (jax.lax.while_loop(lambda c: jnp.all(c < jnp.inf), lambda c: c, obs)[:, 0],)


def with_many_rounds(obs):
    return (jax.lax.fori_loop(0, 2_000_000_000, lambda i, c: c * 0.5, obs)[:, 0],)


def with_counter_that_stands(obs):
    def body(carry):
        return carry[0] + 0, carry[1] * 0.5

    return (jax.lax.while_loop(lambda c: c[0] < 5, body, (0, obs))[1][:, 0],)


def with_counter_that_overflows(kind, stride):
    """``while i < largest: i += stride``: two rounds by division, none of them the last."""
    last = np.iinfo(kind).max

    def fn(obs):
        body = lambda c: (c[0] + jnp.asarray(stride, kind), c[1] * 0.5)  # noqa: E731
        return (jax.lax.while_loop(lambda c: c[0] < last, body, (jnp.zeros((), kind), obs))[1][:, 0],)

    return opaque(fn)


def with_wide_windows(obs):
    wide = jnp.broadcast_to(obs[:, :1], (obs.shape[0], 60_000))
    return (jax.lax.reduce_window(wide, 0.0, jax.lax.add, (1, 60_000), (1, 1), "SAME")[:, 0],)


def with_large_products(obs):
    square = obs[:, :1, None] * jnp.ones((1, 256, 256))
    return (jax.lax.fori_loop(0, 20, lambda i, m: m @ square, square)[:, 0, 0],)


def with_much_in_a_reduction(obs):
    def pair(a, b):
        for _ in range(1000):
            a = a * 0.5 + b
        return a

    wide = jnp.broadcast_to(obs[:, :1], (obs.shape[0], 60_000))
    return (jax.lax.reduce(wide, np.float32(0), pair, (1,)),)


def elsewhere(fn):
    """Harmless here, ``fn`` on another platform."""
    return lambda obs: jax.lax.platform_dependent(obs, cpu=total, cuda=fn)


def with_large_array(obs):
    return (obs.sum(axis=1) + jnp.zeros((60_000, 60_000)).sum(),)


def with_much_work(obs):
    body = lambda i, c: jnp.tanh(c + jnp.zeros((60_000,)).sum())  # noqa: E731
    return (jax.lax.fori_loop(0, 9_000, body, obs)[:, 0],)


def with_random_numbers(obs):
    return (obs.sum(axis=1) + jax.lax.rng_uniform(0.0, 1.0, ()),)


def with_large_constant(obs):
    return (obs.sum(axis=1) + jnp.asarray(np.random.default_rng(0).normal(size=200_000)).sum(),)


def with_two_outputs(obs):
    return obs[:, 0], obs[:, 1]


def with_wrong_shape(obs):
    return (obs[:, :2],)


def with_integers(obs):
    return (obs.sum(axis=1).astype(jnp.int32),)


def with_dictionary(obs):
    return {"reward": obs.sum(axis=1)}


def with_transform(obs):
    return (jnp.fft.fft(obs).real.sum(axis=1),)


def with_print(obs):
    jax.debug.callback(lambda x: None, obs)
    return (obs.sum(axis=1),)


SAFETY = export.DisabledSafetyCheck
FORGED = {
    "harmless, checks disabled": functools.partial(forged, total, disabled=[SAFETY.custom_call("x")]),
    "callback": functools.partial(calling, "xla_ffi_python_cpu_callback"),
    "unknown call": functools.partial(calling, "nothing_of_this_name"),
    "library": functools.partial(forged, with_call_of_library),
    "endless loop": functools.partial(forged, opaque(with_endless_loop)),
    "many rounds": functools.partial(forged, opaque(with_many_rounds)),
    "standing counter": functools.partial(forged, opaque(with_counter_that_stands)),
    "overflow of int8": functools.partial(forged, with_counter_that_overflows("int8", 2)),
    "overflow of int32": functools.partial(forged, with_counter_that_overflows("int32", 2**30)),
    "overflow of uint8": functools.partial(forged, with_counter_that_overflows("uint8", 100)),
    "wide windows": functools.partial(forged, opaque(with_wide_windows)),
    "large products": functools.partial(forged, opaque(with_large_products)),
    "work in a reduction": functools.partial(forged, opaque(with_much_in_a_reduction)),
    "endless elsewhere": functools.partial(forged, opaque(elsewhere(with_endless_loop))),
    "large elsewhere": functools.partial(forged, opaque(elsewhere(with_large_array))),
    "nested program": nesting,
    "large array": functools.partial(forged, with_large_array),
    "much work": functools.partial(forged, with_much_work),
    "random numbers": functools.partial(forged, with_random_numbers),
    "large constant": functools.partial(forged, with_large_constant),
    "two outputs": functools.partial(forged, with_two_outputs),
    "wrong shape": functools.partial(forged, with_wrong_shape),
    "integers": functools.partial(forged, with_integers),
    "dictionary": functools.partial(forged, with_dictionary),
    "transform": functools.partial(forged, with_transform),
    "no derivative": functools.partial(forged, total, order=0),
    "other inputs": functools.partial(forged, lambda x: (x[:, 0],), shapes=((5,),)),
    "other dtype": functools.partial(forged, lambda x: (x.sum(axis=1).astype("float32"),), dtypes=("int32",)),
    "more inputs": functools.partial(
        forged, lambda x, y: (x[:, 0] + y[:, 0],), shapes=((4,), (4,)), dtypes=("float32", "float32")
    ),
    "no program": lambda: b"",
    "text": lambda: b"import os; os.system('true')",
    "zeros": lambda: bytes(4096),
    "half": lambda: forged(total)[:2000],
    "gigantic": lambda: forged(total) + bytes(2**20),
}
"""What makes the bytes, by name; all must be refused at stage ``verify``."""
