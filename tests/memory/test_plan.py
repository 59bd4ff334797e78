"""Bytes that an optimizer needs, planned without memory and held to what it takes."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P

import optax_extras as ox
from optax_extras.communication import compressed_mean

SHAPES = {
    "embed": (64, 32),
    "layers": [{"w": (32, 16), "b": (16,)}, {"w": (16, 8), "b": (8,)}],
}
COUNT = 64 * 32 + 32 * 16 + 16 + 16 * 8 + 8


def structs(dtype=jnp.float32, shapes=SHAPES):
    """Parameters without values."""
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def arrays(**options):
    return jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), structs(**options))


def size(tree):
    """Bytes of arrays that exist."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def fields(plan):
    return {row.field: row for row in plan.fields}


def sums(plan):
    """Holds the fields of a plan to its total; returns the total."""
    for name in ("arrays", "bytes", "bytes_per_device", "bfloat16_bytes", "int8_bytes"):
        of_fields = sum(getattr(row, name) for row in plan.fields)
        assert getattr(plan.state, name) == of_fields, name
    return plan.state


OPTIMIZERS = {
    "adam": lambda: optax.adam(0.1),
    "adafactor": lambda: optax.adafactor(0.1, min_dim_size_to_factor=8),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "muon": lambda: optax.contrib.muon(0.1),
    "adasmooth": lambda: ox.adasmooth(0.1),
    "multi_steps": lambda: optax.MultiSteps(optax.adam(0.1), 4),
    "masked": lambda: optax.masked(
        optax.adam(0.1), lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    ),
    "partition": lambda: optax.partition(
        {"matrix": optax.adam(0.1), "vector": optax.sgd(0.1, momentum=0.9)},
        lambda params: jax.tree.map(
            lambda p: "matrix" if p.ndim > 1 else "vector", params
        ),
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(0.1),
    "add_noise": lambda: optax.add_noise(0.1, 0.1, jax.random.key(0)),
    "noisy_sgd": lambda: ox.noisy_sgd(0.1, key=0, momentum=0.9),
    "stacked": lambda: ox.stacked(optax.adam(0.1), {"embed": 0}),
    "bucketed": lambda: ox.bucketed(optax.adam(0.1)),
}


@pytest.mark.daily("adam", "masked", "partition", "stacked", "multi_steps", "momentum")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_plan_is_what_a_state_takes(name):
    tx, params = OPTIMIZERS[name](), arrays()
    plan, state = ox.plan_bytes(tx, params), tx.init(params)
    assert sums(plan).bytes == plan.state_bytes == size(state)
    assert plan.state.arrays == len(jax.tree.leaves(state))
    assert plan.state_bytes == plan.state.bytes_per_device
    assert plan.parameter_count == COUNT
    assert plan.parameter_bytes == plan.gradient_bytes == size(params) == 4 * COUNT
    assert plan.bytes_per_parameter == plan.state_bytes / COUNT
    assert plan.temporary_bytes is not None
    assert plan.bytes_per_device == (
        plan.state_bytes + 2 * plan.parameter_bytes + plan.temporary_bytes
    )
    assert plan == ox.plan_bytes(tx, structs())


def test_fields_of_known_optimizers():
    adam = ox.plan_bytes(optax.adam(0.1), structs())
    assert [row[:4] for row in adam.fields] == [
        ("0/count", 1, ("int32",), 4),
        ("0/mu", 5, ("float32",), 4 * COUNT),
        ("0/nu", 5, ("float32",), 4 * COUNT),
    ]
    assert adam.state_bytes == 8 * COUNT + 4
    assert adam.state.dtypes == ("int32", "float32")
    sgd = ox.plan_bytes(optax.sgd(0.1), structs())
    assert (sgd.fields, sgd.state_bytes, sgd.bytes_per_parameter) == ((), 0, 0)
    factored = OPTIMIZERS["adafactor"]()
    assert ox.plan_bytes(factored, structs()).bytes_per_parameter < 0.5
    narrow = ox.plan_bytes(optax.adam(0.1, mu_dtype=jnp.bfloat16), structs())
    assert fields(narrow)["0/mu"].dtypes == ("bfloat16",)
    assert narrow.state_bytes == 6 * COUNT + 4


@pytest.mark.daily(
    "multi_steps-acc_grads-5",
    "inject_hyperparams-inner_state/0/mu-5",
    "partition-inner_states/matrix/*",
    "masked-*",
)
@pytest.mark.parametrize(
    ("name", "field", "count"),
    [
        ("multi_steps", "acc_grads", 5),
        ("multi_steps", "inner_opt_state/0/mu", 5),
        ("masked", "inner_state/0/mu", 3),
        ("partition", "inner_states/matrix/inner_state/0/nu", 3),
        ("partition", "inner_states/vector/inner_state/0/trace", 2),
        ("inject_hyperparams", "inner_state/0/mu", 5),
        ("inject_hyperparams", "hyperparams/learning_rate", 1),
        ("adafactor", "0/v_row", 5),
    ],
)
def test_fields_inside_of_wrappers(name, field, count):
    plan = ox.plan_bytes(OPTIMIZERS[name](), structs())
    assert fields(plan)[field].arrays == count


def test_paths_without_a_parameter_to_tell():
    leaf = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    plan = ox.plan_bytes(optax.adam(0.1), leaf)
    assert list(fields(plan)) == ["0/count", "0/mu", "0/nu"]
    rows = NamedSharding(mesh_of(), P("data"))
    sharded = ox.plan_bytes(optax.adam(0.1), leaf, sharding=rows)
    assert sharded.state.bytes_per_device == 8 * 8 + 4
    own = optax.GradientTransformation(lambda params: params, optax.identity().update)
    assert "(root)" in str(ox.plan_bytes(own, {"w": leaf}))
    assert list(fields(ox.plan_bytes(own, {"w": leaf}))) == [""]


def test_leaves_that_are_none_masked_or_empty():
    params = {
        "a": jnp.ones((4, 2)),
        "none": None,
        "masked": optax.MaskedNode(),
        "empty": jnp.ones((0, 3)),
        "scalar": jnp.ones(()),
        "numpy": np.ones(3, np.float32),
        "number": 1.0,
    }
    plan = ox.plan_bytes(optax.adam(0.1), params)
    assert plan.parameter_count == 8 + 1 + 3 + 1
    assert plan.parameters.arrays == 5
    assert plan.state_bytes == 8 * 13 + 4
    assert plan.temporary_bytes is not None
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices()[:4])
    sharding = {**dict.fromkeys(params), "a": NamedSharding(mesh, P("x"))}
    sharded = ox.plan_bytes(optax.adam(0.1), params, sharding=sharding)
    assert sharded.state.bytes_per_device == 8 * (2 + 1 + 3 + 1) + 4
    assert sharded.temporary_bytes is not None
    nothing = ox.plan_bytes(optax.adam(0.1), jnp.ones(0))
    assert (nothing.parameter_count, nothing.bytes_per_parameter) == (0, 4)


@pytest.mark.parametrize(
    ("dtype", "own", "narrow"),
    [
        (jnp.bfloat16, 2, 2),
        (jnp.float16, 2, 2),
        (jnp.float32, 4, 2),
        (jnp.complex64, 8, 4),
    ],
)
def test_dtypes_and_what_codecs_would_take(dtype, own, narrow):
    params = structs(dtype)
    plan = ox.plan_bytes(optax.sgd(0.1, momentum=0.9), params)
    (trace,) = plan.fields
    assert trace.dtypes == (np.dtype(dtype).name,)
    assert plan.bytes_per_parameter == own
    assert trace.bfloat16_bytes == narrow * COUNT
    numbers = [math.prod(x.shape) * max(own // 4, 1) for x in jax.tree.leaves(params)]
    assert trace.int8_bytes == sum(n + 4 * math.ceil(n / 256) for n in numbers)
    for row in (plan.parameters, plan.gradients):
        assert row.bytes_per_parameter == own
        assert (row.bfloat16_bytes, row.int8_bytes) == (None, None)


def test_codecs_leave_what_they_cannot_narrow():
    injected = ox.plan_bytes(OPTIMIZERS["inject_hyperparams"](), structs())
    for name in ("count", "hyperparams/b1"):
        row = fields(injected)[name]
        assert (row.bytes, row.bfloat16_bytes, row.int8_bytes) == (4, 4, 4)
    tiny = ox.plan_bytes(optax.trace(0.9), jax.ShapeDtypeStruct((2,), jnp.bfloat16))
    assert tiny.state.int8_bytes == 4
    byte = jax.ShapeDtypeStruct((512,), jnp.float8_e4m3fn)
    narrow = ox.plan_bytes(optax.trace(0.9), byte).state
    assert (narrow.bytes, narrow.bfloat16_bytes, narrow.int8_bytes) == (512,) * 3


def test_double_precision(x64):
    plan = ox.plan_bytes(optax.adam(0.1), structs(jnp.float64))
    assert plan.state_bytes == 16 * COUNT + 4


def test_what_jax_makes_of_doubles_is_counted():
    params = {"w": np.ones((4, 4))}
    plan = ox.plan_bytes(optax.adam(0.1), params)
    assert plan.parameters.dtypes == ("float32",)
    assert plan.parameter_bytes == 64


def compiled_by_hand(tx, params, state_shardings=None):
    """The memory of a donated step of the test's own."""

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(tx.init, out_shardings=state_shardings)(params)
    places = None
    if state_shardings is not None:
        places = (jax.tree.map(lambda p: p.sharding, params), state_shardings)
    program = jax.jit(step, donate_argnums=(0, 1), out_shardings=places)
    return program.lower(params, state, params).compile().memory_analysis()


@pytest.mark.daily("adam", "multi_steps")
@pytest.mark.parametrize("name", ["adam", "adafactor", "muon", "multi_steps"])
def test_temporaries_are_those_of_a_step(name):
    tx, params = OPTIMIZERS[name](), arrays()
    memory = compiled_by_hand(tx, params)
    plan = ox.plan_bytes(tx, params)
    assert plan.temporary_bytes == memory.temp_size_in_bytes
    assert plan.no_temporaries is None
    # The program leaves out arguments that it does not use.
    kept = plan.parameter_bytes + plan.gradient_bytes + plan.state_bytes
    assert kept - 100 < memory.argument_size_in_bytes <= kept


def test_only_a_step_that_needs_memory_takes_some():
    leaf = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    assert ox.plan_bytes(optax.adam(0.1), leaf).temporary_bytes < 1000
    muon = ox.plan_bytes(optax.contrib.muon(0.1), leaf)
    assert muon.temporary_bytes >= 4 * 1024**2


KINDS = [AxisType.Auto, AxisType.Explicit]


def mesh_of(kind=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)


def shardings(mesh):
    """Matrices over both axes, all vectors of the first layer over one."""
    matrix, vector, replicated = (
        NamedSharding(mesh, spec) for spec in (P("data", "model"), P("data"), P())
    )
    return {
        "embed": matrix,
        "layers": [{"w": matrix, "b": vector}, {"w": matrix, "b": replicated}],
    }


# Parameters on each of the eight devices.
ON_DEVICE = (64 * 32 + 32 * 16 + 16 * 8) // 8 + 16 // 4 + 8


@pytest.mark.daily("adam-*Auto", "partition-*Explicit")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", ["adam", "adafactor", "multi_steps", "partition"])
def test_bytes_of_a_device_are_those_of_a_state_that_is_made(name, kind):
    tx, mesh = OPTIMIZERS[name](), mesh_of(kind)
    params = jax.device_put(arrays(), shardings(mesh))
    plan = ox.plan_bytes(tx, params)
    state = jax.jit(tx.init, out_shardings=plan.state_shardings)(params)
    for row, tree in ((plan.parameters, params), (plan.state, state)):
        on_devices = dict.fromkeys(mesh.devices.flat, 0)
        for x in jax.tree.leaves(tree):
            for shard in x.addressable_shards:
                on_devices[shard.device] += shard.data.nbytes
        assert set(on_devices.values()) == {row.bytes_per_device}
    assert sums(plan).bytes == size(state)
    assert plan.parameters.bytes_per_device == plan.gradients.bytes_per_device
    assert plan.parameters.bytes_per_device == 4 * ON_DEVICE
    given = ox.plan_bytes(tx, structs(), sharding=shardings(mesh))
    assert given == plan
    memory = compiled_by_hand(tx, params, plan.state_shardings)
    assert plan.temporary_bytes == memory.temp_size_in_bytes


def test_states_on_devices_by_field():
    plan = ox.plan_bytes(optax.adam(0.1), structs(), sharding=shardings(mesh_of()))
    for field in ("0/mu", "0/nu"):
        assert fields(plan)[field].bytes_per_device == 4 * ON_DEVICE
    assert fields(plan)["0/count"].bytes_per_device == 4
    (state, _) = plan.state_shardings
    assert state.count.spec == P()
    assert state.mu == state.nu == shardings(mesh_of())
    everywhere = ox.plan_bytes(
        optax.adam(0.1), structs(), sharding=NamedSharding(mesh_of(), P())
    )
    assert everywhere.state.bytes_per_device == everywhere.state_bytes
    assert ox.plan_bytes(optax.adam(0.1), structs()).state_shardings is None


def blocks(size):
    """A state with one number for each block of a row, and one for each row."""

    def init(params):
        return {
            "scale": jax.tree.map(
                lambda p: jnp.zeros((p.shape[0], p.shape[1] // size)), params
            ),
            "row": jax.tree.map(lambda p: jnp.zeros(p.shape[0]), params),
        }

    return optax.GradientTransformation(init, optax.identity().update)


@pytest.mark.parametrize(("size", "parts"), [(2, 8), (8, 8), (32, 1)])
def test_arrays_of_as_many_dimensions_are_sharded_if_they_divide(size, parts):
    params = {"w": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
    sharding = NamedSharding(mesh_of(), P("data", "model"))
    found = fields(ox.plan_bytes(blocks(size), params, sharding=sharding))
    assert found["scale"].bytes_per_device == found["scale"].bytes / parts
    assert found["row"].bytes_per_device == found["row"].bytes == 4 * 64


def test_a_leaf_of_shardings_may_stand_for_several():
    mesh = mesh_of()
    rows, replicated = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    params = structs()
    whole = ox.plan_bytes(optax.adam(0.1), params, sharding=rows)
    assert whole.parameters.bytes_per_device == COUNT
    prefix = {"embed": rows, "layers": replicated}
    plan = ox.plan_bytes(optax.adam(0.1), params, sharding=prefix)
    rest = COUNT - 64 * 32
    assert plan.parameters.bytes_per_device == 4 * (rest + 64 * 32 // 4)
    # Where nothing is said, parameters keep their own, or are replicated.
    own = {**params, "embed": jax.ShapeDtypeStruct((64, 32), "float32", sharding=rows)}
    for unsaid in (None, {"embed": None, "layers": None}):
        assert ox.plan_bytes(optax.adam(0.1), own, sharding=unsaid) == plan
    given = {"embed": replicated, "layers": None}
    over = ox.plan_bytes(optax.adam(0.1), own, sharding=given)
    assert over.parameters.bytes_per_device == over.parameter_bytes


def test_devices_that_do_not_exist():
    abstract = AbstractMesh((4, 2), ("data", "model"))
    real = ox.plan_bytes(optax.adam(0.1), structs(), sharding=shardings(mesh_of()))
    plan = ox.plan_bytes(optax.adam(0.1), structs(), sharding=shardings(abstract))
    assert (plan.fields, plan.parameters) == (real.fields, real.parameters)
    assert plan.temporary_bytes is None
    assert "a mesh is abstract" in plan.no_temporaries
    assert plan.bytes_per_device == real.bytes_per_device - real.temporary_bytes
    huge = AbstractMesh((64, 512), ("data", "model"))
    params = jax.ShapeDtypeStruct((2**17, 2**17), jnp.float32)
    sharding = NamedSharding(huge, P("data", "model"))
    plan = ox.plan_bytes(optax.adam(0.1), params, sharding=sharding)
    assert plan.parameter_bytes == 2**36
    assert plan.parameters.bytes_per_device == 2**36 // 2**15


@pytest.mark.parametrize(
    ("tx", "reason"),
    [
        (optax.lbfgs(), "TypeError: .* missing .* 'value'"),
        (compressed_mean(ox.compressors.sign(), "data", workers=2), "axis_name"),
        (optax.GradientTransformation(lambda p: (), lambda *_: 3), "TypeError"),
        (optax.stateless(lambda *_: exec("raise ValueError('No.')")), "No$"),
    ],
)
def test_steps_that_cannot_be_compiled(tx, reason):
    plan = ox.plan_bytes(tx, structs())
    assert plan.temporary_bytes is None
    assert re.search(reason, plan.no_temporaries)
    assert plan.bytes_per_device == 2 * plan.parameter_bytes + plan.state_bytes
    assert str(plan).endswith(f"{plan.no_temporaries}.")
    assert not plan.no_temporaries.endswith(".")


def test_a_printed_table():
    params = {"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    sharding = NamedSharding(AbstractMesh((8,), ("data",)), P("data"))
    plan = ox.plan_bytes(optax.adam(0.1), params, sharding=sharding)
    assert [" ".join(line.split()) for line in str(plan).splitlines()] == [
        "field arrays dtypes bytes B per param per device as bfloat16 as 8 bits",
        "parameters 1 float32 4 MiB 4 512 KiB - -",
        "gradients 1 float32 4 MiB 4 512 KiB - -",
        "0/count 1 int32 4 B <0.001 4 B 4 B 4 B",
        "0/mu 1 float32 4 MiB 4 512 KiB 2 MiB 1.02 MiB",
        "0/nu 1 float32 4 MiB 4 512 KiB 2 MiB 1.02 MiB",
        "state 3 int32, float32 8 MiB 8 1 MiB 4 MiB 2.03 MiB",
        "temporaries - - - - unknown - -",
        "total - - - - 2 MiB - -",
        "The total is without temporaries: a mesh is abstract, and JAX compiles for"
        " real devices only.",
    ]
    (*_, total) = str(ox.plan_bytes(optax.sgd(0.1), params)).splitlines()
    assert total.split() == ["total", "-", "-", "-", "-", "8", "MiB", "-", "-"]


def test_inside_of_jit():
    @jax.jit
    def step(params):
        seen.append(ox.plan_bytes(optax.adam(0.1), params))
        return params

    seen = []
    step(arrays())
    assert seen == [ox.plan_bytes(optax.adam(0.1), structs())]


MESH = AbstractMesh((8,), ("data",))
ROWS = NamedSharding(MESH, P("data"))
W = {"w": jax.ShapeDtypeStruct((16, 4), jnp.float32)}


@pytest.mark.parametrize(
    ("arguments", "sharding", "kind", "message"),
    [
        ((3, W), None, TypeError, "`tx` must be a gradient transformation.*got 3"),
        ((optax.adam, W), None, TypeError, "`tx` must be .*got <function adam"),
        ((optax.sgd(1), {}), None, ValueError, r"`params` must hold .* array, got \{"),
        ((optax.sgd(1), None), None, ValueError, "`params` must hold .* got None"),
        (
            (optax.sgd(1), {"a": [jnp.ones(2), "x"]}),
            None,
            TypeError,
            "`params` must be a tree of arrays .*got 'x' at 'a/1'",
        ),
        ((optax.sgd(1), len), None, TypeError, "got <built-in .* len> at the root"),
        (
            (optax.sgd(1), {"w": jnp.ones(17)}),
            ROWS,
            ValueError,
            r"`sharding`.* must divide .*P\('data',\).* for shape \(17,\) at 'w'",
        ),
        (
            (optax.sgd(1), jnp.ones(())),
            ROWS,
            ValueError,
            r"must divide .* for shape \(\) at the root",
        ),
        (
            (optax.sgd(1), jax.ShapeDtypeStruct((17,), "float32", sharding=ROWS)),
            None,
            ValueError,
            r"or that of a parameter itself, must divide .*\(17,\) at the root",
        ),
        (
            (optax.sgd(1), W),
            {"v": ROWS},
            ValueError,
            r"`sharding` must be one for .* PyTreeDef\(\{'w': \*\}\), got \{'v': Named",
        ),
        ((optax.sgd(1), W), {"w": {"x": ROWS}}, ValueError, "or have their structure"),
        ((optax.sgd(1), W), MESH, TypeError, "must be a jax.sharding.NamedSharding.*M"),
        ((optax.sgd(1), W), {"w": P("data")}, TypeError, r"got P\('data',\)"),
    ],
)
def test_errors_name_argument_and_value(arguments, sharding, kind, message):
    with pytest.raises(kind, match=message):
        ox.plan_bytes(*arguments, sharding=sharding)


def test_errors_of_init_are_those_of_the_transformation():
    def init(params):
        raise KeyError("gone")

    tx = optax.GradientTransformation(init, optax.identity().update)
    with pytest.raises(KeyError, match="gone"):
        ox.plan_bytes(tx, W)
