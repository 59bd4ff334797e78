"""The random streams: which bits, and which Gaussians they become."""

import enum
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from scipy import stats

from optax_extras._core import counters, gaussian, paths

WORDS = jnp.array([1, 2], jnp.uint32)


def draw(tree, words=WORDS, step=0, stream="test"):
    return gaussian.gaussian_like(
        jnp.asarray(words), jnp.int32(step), tree, stream=stream
    )


def float64_box_muller(radius_bits, angle_bits, pair):
    """The formula, on the uniform numbers as float32 holds them."""
    scaled = (radius_bits >> 1).astype(np.float32) + np.float32(0.5)
    minus_log = -np.log(scaled.astype(np.float64) / 2**31)
    s = angle_bits.astype(np.int32).astype(np.float32).astype(np.float64) / 2**31
    if pair:
        return np.sqrt(minus_log) * np.exp(1j * np.pi * s)
    return np.sqrt(2 * minus_log) * np.sin(np.pi * s / 2)


def test_blocks_are_jax_threefry_word_for_word():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**32, (50, 2), np.uint32)
    high, low = rng.integers(0, 2**32, (2, 1000), np.uint32)
    edges = np.uint32([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    corners = np.stack(np.meshgrid(edges, edges)).reshape(2, -1)
    high, low = np.concatenate([(high, low), corners], axis=1)
    for key in map(jnp.asarray, [*keys, *corners.T]):
        expected = threefry_2x32(key, jnp.concatenate([high, low])).reshape(2, -1)
        np.testing.assert_array_equal(counters.threefry2x32(key, high, low), expected)


def test_bits_of_a_leaf_are_jax_random_bits(x64):
    key = jax.random.key(12345, impl="threefry2x32")
    expected = jax.random.bits(key, (7, 11, 13), jnp.uint64)
    high, low = counters.threefry2x32(
        jax.random.key_data(key), *counters.element_index((7, 11, 13))
    )
    np.testing.assert_array_equal(high, (expected >> 32).astype(jnp.uint32))
    np.testing.assert_array_equal(low, expected.astype(jnp.uint32))


def test_leaf_keys_are_two_blocks_of_the_users():
    leaf = jnp.zeros(5)
    high, low = paths.hash_words("test", jax.tree_util.DictKey("w"))
    step = threefry_2x32(WORDS, jnp.uint32([0, 3]))
    key = threefry_2x32(step, jnp.stack([high, low]))
    bits = threefry_2x32(
        key, jnp.concatenate([jnp.zeros(5), jnp.arange(5)]).astype(jnp.uint32)
    )
    expected = gaussian._box_muller(*bits.reshape(2, 5), False)
    np.testing.assert_array_equal(draw({"w": leaf}, step=3)["w"], expected)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (0, 3)])
def test_element_index_is_row_major(shape):
    high, low = counters.element_index(shape)
    assert int(high) == 0
    np.testing.assert_array_equal(low, np.arange(np.prod(shape)).reshape(shape))


@pytest.mark.parametrize(
    ("shape", "start"),
    [
        ((2**20, 2**13), (2**20 - 2, 2**13 - 2)),
        ((2**31, 7), (2**31 - 2, 5)),
        ((3, 2**16, 2**16), (1, 2**16 - 2, 2**16 - 2)),
        ((2**16, 2**16, 5), (2**16 - 2, 2**16 - 2, 3)),
        ((2**20, 5000), (858_993, 2295)),  # the low word overflows within this row
        ((2**33 + 1,), (2**32 - 1,)),
        ((2, 2**32 + 5, 3), (0, 2**32, 1)),
        ((2**32,), (2**32 - 2,)),
    ],
)
def test_element_index_is_64_bits_wide(shape, start):
    window = tuple(slice(i, i + 2) for i in start)

    @jax.jit
    def words():
        index = counters.element_index(shape)
        return [jnp.broadcast_to(x, shape)[window] for x in index]

    high, low = words()
    index = (np.asarray(high, np.uint64) << np.uint64(32)) + np.asarray(low, np.uint64)
    axes = [np.arange(i, i + 2, dtype=np.uint64) for i in start]
    np.testing.assert_array_equal(
        index, np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape)
    )


@pytest.mark.parametrize("pair", [False, True])
def test_gaussians_follow_the_formula(pair):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (2, 10**6), np.uint32)
    edges = [0, 1, 2, 2**30, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    bits[:, : len(edges) ** 2] = np.stack(np.meshgrid(edges, edges)).reshape(2, -1)
    expected = float64_box_muller(*bits, pair)
    actual = np.asarray(gaussian._box_muller(*map(jnp.asarray, bits), pair))
    error = np.abs(actual - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < 5e-7


def test_tails_reach_past_float32_normal():
    z = gaussian._box_muller(jnp.uint32([0, 0]), jnp.uint32([2**31 - 1, 2**31]), False)
    np.testing.assert_allclose(z, [6.66, -6.66], atol=0.01)


def test_complex_samples_are_circular():
    z = np.asarray(draw(jnp.zeros(10**6, jnp.complex64)))
    assert z.dtype == np.complex64
    error = 5.5 / np.sqrt(z.size)
    assert abs(np.mean(np.abs(z) ** 2) - 1) < error
    assert abs(np.mean(z**2)) < 2 * error
    assert stats.kstest(np.sqrt(2) * z.real, "norm").pvalue > 1e-6
    assert stats.kstest(np.sqrt(2) * z.imag, "norm").pvalue > 1e-6


def test_half_precision_trees_get_float32_noise():
    for dtype in (jnp.bfloat16, jnp.float16):
        z = draw(jnp.zeros(20_000, dtype))
        assert z.dtype == jnp.float32
        assert np.unique(z).size > 10_000


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (3, 0, 2), (4, 1, 3)])
def test_an_element_depends_on_its_index_and_not_on_the_shape(shape):
    size = int(np.prod(shape))
    flat = draw(jnp.zeros(100))
    np.testing.assert_array_equal(draw(jnp.zeros(shape)).ravel(), flat[:size])


GROUPED = {
    "a": [jnp.zeros((3, 4)) for _ in range(5)],
    "b": [jnp.zeros(7, jnp.bfloat16) for _ in range(3)],
    "c": [jnp.zeros((3, 4), jnp.complex64) for _ in range(2)],
    "single": jnp.zeros((2, 2)),
    "scalar": jnp.zeros(()),
    "empty": [jnp.zeros((0, 3)), jnp.zeros((0, 3))],
}


@pytest.fixture
def one_device(monkeypatch):
    """Draws small leaves together, as where there is one device."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    gaussian.gaussian_like.clear_cache()
    yield
    gaussian.gaussian_like.clear_cache()


def compiled(tree):
    return gaussian.gaussian_like.lower(
        WORDS, jnp.int32(0), tree, stream="test"
    ).compile()


def test_grouping_does_not_change_the_noise(request):
    alone = draw(GROUPED)
    request.getfixturevalue("one_device")
    together = draw(GROUPED)
    assert "dynamic-slice" in compiled(GROUPED).as_text()
    jax.tree.map(np.testing.assert_array_equal, together, alone)
    large = {"w": jnp.zeros(gaussian._LARGE), "v": jnp.zeros(gaussian._LARGE - 1)}
    for name, z in draw(large).items():
        np.testing.assert_array_equal(z, draw({name: large[name]})[name])


@pytest.mark.nightly
def test_grouped_noise_under_vmap_and_scan(one_device):
    def of_key(seed, step):
        words = jnp.asarray(gaussian.key_words(seed))
        return gaussian.gaussian_like(words, step, GROUPED, stream="test")

    seeds, steps = jnp.arange(3), jnp.arange(3)
    expected = [of_key(i, jnp.int32(i)) for i in range(3)]
    batched = jax.vmap(of_key)(seeds, steps)
    _, scanned = jax.lax.scan(lambda c, x: (c, of_key(*x)), None, (seeds, steps))
    for i in range(3):
        for results in (batched, scanned):
            member = jax.tree.map(lambda x: x[i], results)  # noqa: B023
            jax.tree.map(np.testing.assert_array_equal, member, expected[i])


def test_generators_grow_with_kinds_and_not_with_leaves(one_device):
    def generators(leaves):
        tree = [jnp.zeros((8, 8))] * leaves + [jnp.zeros(8)] * leaves
        return compiled(tree).as_text().count(" xor(")

    assert generators(2) == generators(20) > 0


def test_temporary_memory_is_at_most_the_noise(one_device):
    def step(params, words):
        z = gaussian.gaussian_like(words, jnp.int32(1), params, stream="test")
        return jax.tree.map(lambda p, z: p - 0.1 * z, params, z)

    def temporary_bytes_per_parameter(params):
        program = jax.jit(step, donate_argnums=0).lower(params, WORDS).compile()
        size = sum(p.size for p in jax.tree.leaves(params))
        return program.memory_analysis().temp_size_in_bytes / size

    assert temporary_bytes_per_parameter({"w": jnp.zeros(gaussian._LARGE)}) < 0.01
    huge = {"w": jax.ShapeDtypeStruct((2**33 + 1,), jnp.bfloat16)}
    assert temporary_bytes_per_parameter(huge) < 1e-6
    small = [jnp.zeros((128, 128)) for _ in range(30)]
    assert temporary_bytes_per_parameter(small) < 4.1


COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


@pytest.mark.daily("axes0-*Auto", "axes1-*Explicit")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("axes", [(8,), (4, 2)])
def test_each_device_draws_its_own_shard(axes, kind):
    mesh = jax.make_mesh(axes, ("x", "y")[: len(axes)], axis_types=(kind,) * len(axes))
    one = [P("x"), P(None, "x"), P(None, None, "x")]
    two = [P("x", "y"), P("y", "x"), P(("x", "y")), P(None, "y", "x")]
    specs = one if len(axes) == 1 else one + two
    with jax.set_mesh(mesh):
        params = {
            f"{i}{j}": jax.device_put(jnp.zeros((16, 24, 64)), NamedSharding(mesh, s))
            for i, s in enumerate(specs)
            for j in range(2)
        }

        def step(params):
            z = gaussian.gaussian_like(WORDS, jnp.int32(1), params, stream="test")
            return jax.tree.map(lambda p, z: p - 0.1 * z, params, z)

        shardings = jax.tree.map(lambda p: p.sharding, params)
        program = jax.jit(step, out_shardings=shardings).lower(params).compile()
    text = program.as_text()
    assert not [name for name in COLLECTIVES if name in text]
    assert "[16,24,64]" not in text
    expected = draw({name: jnp.zeros((16, 24, 64)) for name in params}, step=1)
    for name, p in program(params).items():
        np.testing.assert_allclose(p, -0.1 * expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("axes", "spec"),
    [
        ((8,), P("x")),
        ((8,), P(None, "x")),
        ((4, 2), P("x", "y")),
        ((4, 2), P("y", "x")),
    ],
)
def test_each_device_draws_its_own_shard_of_uneven_dimensions(axes, spec):
    # Explicit meshes and arrays outside jit refuse dimensions that do not divide.
    mesh = jax.make_mesh(
        axes, ("x", "y")[: len(axes)], axis_types=(AxisType.Auto,) * len(axes)
    )
    sharding = NamedSharding(mesh, spec)

    def step(params):
        uneven = jax.lax.with_sharding_constraint(params[:15, :23], sharding)
        z = gaussian.gaussian_like(WORDS, jnp.int32(1), uneven, stream="test")
        z = jax.lax.with_sharding_constraint(z, sharding)
        return jnp.pad(uneven - 0.1 * z, ((0, 1), (0, 1)))

    params = jax.device_put(jnp.zeros((16, 24)), sharding)
    program = jax.jit(step, out_shardings=sharding).lower(params).compile()
    text = program.as_text()
    assert not [name for name in COLLECTIVES if name in text]
    assert "[15,23]" not in text
    expected = -0.1 * draw(jnp.zeros((15, 23)), step=1)
    np.testing.assert_allclose(program(params)[:15, :23], expected, rtol=1e-6)


def test_attribute_and_dict_key_are_one_name_and_types_are_not():
    words = paths.hash_words
    key, attribute = jax.tree_util.DictKey("w"), jax.tree_util.GetAttrKey("w")
    assert words("s", key) == words("s", attribute)
    assert words("s", jax.tree_util.DictKey("0")) != words(
        "s", jax.tree_util.SequenceKey(0)
    )
    assert words("s", key) != words("t", key)
    one, two, twelve = map(jax.tree_util.SequenceKey, (1, 2, 12))
    assert words("s", one, two) != words("s", twelve)


class Name(enum.StrEnum):
    W = "w"


@pytest.mark.parametrize(
    ("key", "equal"),
    [
        (3, np.int64(3)),
        (1, True),
        (1, np.bool_(True)),
        (2, 2.0),
        (0.5, np.float32(0.5)),
        ("w", np.str_("w")),
        ("w", Name.W),
        ((0, "w"), (np.int64(0), Name.W)),
        (b"w", np.bytes_(b"w")),
        (frozenset([0, 8]), frozenset([8, 0])),
    ],
)
def test_equal_dict_keys_are_one_path(key, equal):
    # JAX compiles once for both, so that the first tree would decide the noise.
    words = paths.hash_words
    entries = map(jax.tree_util.DictKey, (key, equal))
    assert len({words("s", entry) for entry in entries}) == 1


def test_a_path_that_changes_between_processes_is_refused():
    class Opaque:
        def __lt__(self, other):
            return id(self) < id(other)

    with pytest.raises(TypeError, match="the same in every process"):
        draw({Opaque(): jnp.zeros(3)})


def test_two_leaves_at_one_path_are_refused():
    class Pair(list):
        """A container that gives both children one key."""

    both = jax.tree_util.DictKey("x")
    jax.tree_util.register_pytree_with_keys(
        Pair, lambda p: ([(both, p[0]), (both, p[1])], None), lambda _, x: Pair(x)
    )
    with pytest.raises(ValueError, match=r"two leaves are at `\['x'\]`"):
        draw(Pair([jnp.zeros(3), jnp.zeros(3)]))


def test_noise_is_the_same_in_another_process():
    code = (
        "import jax.numpy as jnp\n"
        "from optax_extras._core import gaussian\n"
        "z = gaussian.gaussian_like(jnp.array([1, 2], jnp.uint32), jnp.int32(3),"
        " {'w': [jnp.zeros(4)]}, stream='test')\n"
        "print(z['w'][0].tobytes().hex())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    here = np.asarray(draw({"w": [jnp.zeros(4)]}, step=3)["w"][0])
    assert printed == {here.tobytes().hex()}


def test_every_form_of_a_key_gives_the_same_words():
    expected = np.array([0, 7], np.uint32)
    typed = jax.random.key(7, impl="threefry2x32")
    forms = (
        7,
        np.int64(7),
        np.uint32(7),
        np.array(7),
        jnp.int32(7),
        jnp.uint32(7),
        typed,
        jax.random.key_data(typed),
        np.asarray(jax.random.key_data(typed)),
    )
    for key in forms:
        np.testing.assert_array_equal(gaussian.key_words(key), expected)
        if isinstance(key, jax.Array):
            np.testing.assert_array_equal(jax.jit(gaussian.key_words)(key), expected)


def test_numpy_integers_keep_64_bits():
    for key in (np.array(2**40 + 5), np.int64(2**40 + 5)):
        np.testing.assert_array_equal(gaussian.key_words(key), [256, 5])


def test_python_and_traced_integers_agree_to_64_bits(x64):
    for seed in (-1, -(2**40), 2**31, 2**32 + 5, 2**63 - 1):
        expected = [seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF]
        for key in (seed, jnp.int64(seed)):
            np.testing.assert_array_equal(gaussian.key_words(key), expected)
    np.testing.assert_array_equal(
        gaussian.key_words(jnp.int32(-1)), gaussian.key_words(-1)
    )
    np.testing.assert_array_equal(gaussian.key_words(2**64 - 1), gaussian.key_words(-1))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_implementation_are_taken(impl):
    words = [gaussian.key_words(jax.random.key(s, impl=impl)) for s in range(3)]
    assert all(w.shape == (2,) and w.dtype == jnp.uint32 for w in words)
    assert len({tuple(map(int, w)) for w in words}) == 3


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (None, TypeError, "`key` must be an int, .*, got None"),
        (True, TypeError, "got True"),
        (1.5, TypeError, "got 1.5"),
        ("a", TypeError, "got 'a'"),
        (jnp.float32(1), TypeError, r"got float32 of shape \(\)"),
        (jnp.zeros(3, jnp.uint32), TypeError, r"got uint32 of shape \(3,\)"),
        (jnp.zeros(2, jnp.int32), TypeError, r"got int32 of shape \(2,\)"),
        (2**64, ValueError, "`key` must fit in 64 bits, got 18446744073709551616"),
    ],
)
def test_what_is_no_key_is_refused(key, error, message):
    with pytest.raises(error, match=message):
        gaussian.key_words(key)


def test_a_batch_of_keys_is_refused():
    with pytest.raises(ValueError, match="`key` must be a single key"):
        gaussian.key_words(jax.random.split(jax.random.key(0)))
