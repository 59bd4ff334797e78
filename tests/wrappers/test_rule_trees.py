"""Rules as data: one compiled step, one state, and checkpoints that outlive rules."""

import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import optax_extras as ox
from optax_extras import Rule

PARAMS = {
    "embed": jnp.linspace(-1, 1, 6).reshape(2, 3),
    "layers": [{"w": i * jnp.ones((2, 2)), "b": jnp.ones(2)} for i in range(3)],
    "n": None,
}
# The same structure and shapes of a tree, whatever they say.
RULE_SETS = [
    {},
    {"embed": Rule(0.5, 0.3, 2)},
    [ox.layerwise_decay(r"layers/(\d+)/.*", 0.8), ("embed", Rule(0.0))],
    {r".*/b": Rule(weight_decay=0.0), "layers/[01]/w": Rule(frozen_until=math.inf)},
    {".*": Rule(jnp.float32(0.1), np.float32(0.2), jnp.int32(1))},
]


def gradients(t):
    return jax.tree.map(lambda p: jnp.cos(p + t), PARAMS)


def same(actual, expected, rtol=0.0):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol, rtol)


class Counted:
    """A compiled step that counts its traces."""

    def __init__(self, step):
        self.traces = 0

        def counted(*arguments):
            self.traces += 1
            return step(*arguments)

        self.call = jax.jit(counted)

    def __call__(self, *arguments):
        return self.call(*arguments)


def test_a_whole_rule_set_is_an_argument_of_one_compiled_step():
    tx = ox.with_rules(optax.scale_by_adam(), 0.1, {}, weight_decay=9.0)
    step = Counted(lambda g, s, p, r: tx.update(g, s, p, rules=r))
    params = others = PARAMS
    state = other_state = tx.init(params)
    for t in range(10):
        rules = RULE_SETS[t % 5]
        tree = ox.resolve_rules(rules, PARAMS, weight_decay=0.1)
        updates, after = step(gradients(t), state, params, tree)
        fixed = ox.with_rules(optax.scale_by_adam(), 0.1, rules, weight_decay=0.1)
        expected, other_state = fixed.update(gradients(t), other_state, others)
        same(updates, expected, 1e-6)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        params, others = (
            optax.apply_updates(p, u)
            for p, u in ((params, updates), (others, expected))
        )
        state = after
    assert step.traces == 1


def test_numbers_of_rules_may_be_traced():
    """A multiplier, a weight decay and a step until which leaves are frozen change."""

    def update(grads, state, params, rule):
        rules = [("embed", rule), ox.layerwise_decay(r"layers/(\d+)/.*", rule[0])]
        return ox.with_rules(optax.scale_by_adam(), 0.1, rules).update(
            grads, state, params
        )

    step = Counted(update)
    tx = ox.with_rules(optax.scale_by_adam(), 0.1, {})
    state = tx.init(PARAMS)
    for t, (multiplier, decay, until) in enumerate(
        [(0.5, 0.1, 0), (0.25, 0.0, 0), (1.0, 0.3, 3), (0.7, 0.3, 2)]
    ):
        rule = Rule(jnp.float32(multiplier), jnp.float32(decay), jnp.int32(until))
        updates, after = step(gradients(t), state, PARAMS, rule)
        rules = [
            ("embed", Rule(multiplier, decay, until)),
            ox.layerwise_decay(r"layers/(\d+)/.*", multiplier),
        ]
        fixed = ox.with_rules(optax.scale_by_adam(), 0.1, rules)
        expected, _ = fixed.update(gradients(t), state, PARAMS)
        same(updates, expected, 1e-6)
        assert bool((updates["embed"] == 0).all()) == (until > t)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        state = after
    assert step.traces == 1


def test_a_checkpoint_outlives_its_rules(tmp_path):
    """Saved under one set of rules, it is restored and goes on under another."""
    old = ox.with_rules(optax.scale_by_adam(), 0.1, RULE_SETS[1])
    new = ox.with_rules(optax.scale_by_adam(), 0.1, RULE_SETS[3], weight_decay=0.1)
    params, state = PARAMS, old.init(PARAMS)
    for t in range(3):
        updates, state = old.update(gradients(t), state, params)
        params = optax.apply_updates(params, updates)
    like = jax.eval_shape(new.init, PARAMS)
    assert jax.tree.structure(like) == jax.tree.structure(state)
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)  # it reports every file
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            arguments = ocp.args.PyTreeRestore(
                item=state,
                restore_args=ocp.checkpoint_utils.construct_restore_args(state),
            )
            restored = checkpointer.restore(tmp_path / "state", args=arguments)
    finally:
        logging.getLogger("absl").setLevel(level)
    same(restored, state)
    assert int(restored.count) == 3
    updates, after = new.update(gradients(3), restored, params)
    direction, moments = optax.scale_by_adam().update(gradients(3), state.inner_state)
    same(after.inner_state, moments)
    for i in range(3):
        w, b = direction["layers"][i]["w"], direction["layers"][i]["b"]
        w = w + 0.1 * params["layers"][i]["w"] if i == 2 else jnp.zeros_like(w)
        same(updates["layers"][i], {"w": -0.1 * w, "b": -0.1 * b}, 1e-6)


def test_the_tree():
    tree = ox.resolve_rules(RULE_SETS[3], PARAMS, weight_decay=0.25)
    assert jax.tree.structure(tree, is_leaf=lambda x: isinstance(x, Rule)) == (
        jax.tree.structure(PARAMS)
    )
    for x, dtype in zip(tree["embed"], ("float32", "float32", "int32"), strict=True):
        assert isinstance(x, jax.Array)
        assert (x.shape, x.dtype, x.weak_type) == ((), dtype, False)
    assert tree["embed"] == Rule(1, 0.25, 0)
    assert tree["layers"][0]["b"] == Rule(1, 0, 0)
    assert tree["layers"][0]["w"] == Rule(1, 0.25, 2**31 - 1)
    abstract = jax.eval_shape(lambda: PARAMS)
    same(ox.resolve_rules(RULE_SETS[3], abstract, weight_decay=0.25), tree)


def test_the_tree_may_be_donated():
    multiplier = jnp.ones(3)
    rules = {"embed": Rule(multiplier)}
    for _ in range(2):
        tree = ox.resolve_rules(rules, PARAMS, weight_decay=0.0)
        jax.jit(lambda x: x, donate_argnums=0)(tree)
    np.testing.assert_array_equal(multiplier, 1)


def test_what_has_no_place_in_a_tree():
    with pytest.raises(
        TypeError, match=r"`lr_multiplier` of the rule 'embed' .* a sche"
    ):
        ox.resolve_rules({"embed": Rule(lambda t: t)}, PARAMS, weight_decay=0.0)
    with pytest.raises(TypeError, match="`weight_decay` must be a real number"):
        ox.resolve_rules({}, PARAMS, weight_decay=lambda t: t)
    with pytest.raises(
        ValueError, match="`weight_decay` must be finite and >= 0, got -1"
    ):
        ox.resolve_rules({}, PARAMS, weight_decay=-1)
    with pytest.raises(ValueError, match="'typo' chooses none"):
        ox.resolve_rules({"typo": Rule()}, PARAMS, weight_decay=0.0)
    with pytest.raises(ValueError, match="none matches 'layers/0/b'"):
        ox.resolve_rules({"e.*": Rule()}, PARAMS, weight_decay=0.0, require_all=True)
    with pytest.raises(TypeError, match="`require_all` must be True or False"):
        ox.resolve_rules({}, PARAMS, weight_decay=0.0, require_all=1)


def test_trees_that_do_not_fit():
    tx = ox.with_rules(optax.identity(), 1.0, {})
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def update(tree, params=params):
        tx.update(
            {"a": jnp.ones(2), "b": jnp.ones(2)}, tx.init(params), params, rules=tree
        )

    tree = ox.resolve_rules({}, params, weight_decay=0.1)
    update(tree)
    with pytest.raises(ValueError, match=r"for each leaf, .* there is none for 'b'"):
        update({"a": tree["a"]})
    with pytest.raises(TypeError, match=r"must be a tree of `Rule`, .* got 0.5 at 'b'"):
        update({**tree, "b": 0.5})
    wide = tree["a"]._replace(lr_multiplier=jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"`lr_multiplier` of the rule at 'b' must broad"
    ):
        update({**tree, "b": wide})
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(params, tx.init(params), rules=tree)


def test_paths_of_one_text_have_rules_of_their_own():
    params = {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}
    tx = ox.with_rules(optax.identity(), 1.0, {})
    tree = ox.resolve_rules({}, params, weight_decay=0.0)
    tree["a"]["b"] = tree["a"]["b"]._replace(lr_multiplier=jnp.float32(0.5))
    updates, _ = tx.update(params, tx.init(params), params, rules=tree)
    np.testing.assert_allclose(
        (updates["a"]["b"], updates["a/b"]), [[-0.5] * 2, [-1] * 2]
    )
