"""Training as a Python loop over single steps: the oracle of sweeps and range tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def parameters(state, params):
    """The point of most methods."""
    return params


def train(
    task,
    tx,
    *,
    steps,
    seed=0,
    eval_every=None,
    gradient_params=parameters,
    eval_params=parameters,
):
    """Metrics of the initial parameters, and after every `eval_every` and all steps."""
    init_key, batch_key, loss_key, _ = jax.random.split(jax.random.key(seed), 4)

    @jax.jit
    def advance(params, state, step):
        plan = task.batches.plan(batch_key, step, 1)
        batch = task.batches.take(jax.tree.map(lambda x: x[0], plan))
        key = jax.random.fold_in(loss_key, step)
        grads = jax.grad(task.loss)(gradient_params(state, params), batch, key)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def evaluate(params, state):
        return task.evaluate(eval_params(state, params))

    params = task.init(init_key)
    state = tx.init(params)
    found = [evaluate(params, state)]
    for step in range(steps):
        params, state = advance(params, state, jnp.int32(step))
        if (step + 1) % (eval_every or steps) == 0 or step + 1 == steps:
            found.append(evaluate(params, state))
    return {name: np.array([row[name] for row in found]) for name in found[0]}
