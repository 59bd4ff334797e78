"""Updates without the elements that the gradient contradicts (Liang et al. 2024)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, dtypes, leaves, scalars
from optax_extras._core.inner import as_transformation
from optax_extras._core.missing import update_without_missing
from optax_extras._core.opaque import barrier
from optax_extras.typing import Scalar


class CautiousState(NamedTuple):
    """State of `cautious`."""

    inner_state: optax.OptState


def cautious(
    inner: optax.GradientTransformation,
    *,
    min_fraction: Scalar = 1e-3,
    descent: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Leaves out the elements of an update that do not descend the present gradient.

    Use it around an optimizer with momentum, whose updates go on in a direction that
    the gradient has left: `optax.adam`, `optax.lion`, or SGD with momentum. Around
    plain SGD it changes nothing where no gradient is zero. Elements with a gradient of
    zero, of which an embedding has many, count as left out, and the scale below makes
    the steps of all others longer, by default up to 1000 times; ``min_fraction=1``
    turns it off.

    With the gradient g and the update u that leaves ``inner``, for each leaf of d
    elements, and :math:`f_0` = ``min_fraction``:

    .. math::

        k_i = [u_i g_i < 0], \qquad
        f = \frac{1}{d} \sum_i k_i, \qquad
        u'_i = \frac{k_i u_i}{\max(f, f_0)}

    Weight decay is part of u where ``inner`` adds it, and is left out too. The source's
    C-AdamW decays all parameters: put decay behind, and ``descent=False`` around a
    direction, which points up until the learning rate turns it around::

        optax.chain(
            optax_extras.cautious(optax.scale_by_adam(), descent=False),
            optax.add_decayed_weights(0.1),
            optax.scale_by_learning_rate(1e-3),
        )

    *Differences from the source*: none with the scale of the authors' AdamW, which has
    a ``min_fraction`` of 0.001. Their Lion and Adafactor have the paper's scale, d
    / (1 + ∑ k), which is not 1 where nothing is left out. Signs are compared, where the
    source's product of small numbers may be 0. A complex element is kept if
    :math:`\operatorname{Re}(\bar g_i u_i) < 0`.

    Args:
      inner: any transformation.
      min_fraction: :math:`f_0` in (0, 1]; a number or a 0-d array.
      descent: whether updates of ``inner`` are to be added to the parameters, as those
        of a whole optimizer; False if they are still to be multiplied by a negative
        learning rate.

    Returns:
      A gradient transformation. Its state is that of ``inner``; a step takes temporary
      memory for the updates. Inside `jax.shard_map`, the fraction is that of the
      shard's part of a leaf.

    Raises:
      ValueError: ``min_fraction`` is out of its range; at ``update``, the gradients do
        not have the structure and shapes of the parameters.
      TypeError: an argument has the wrong type, or a gradient is not floating-point or
        complex.

    Examples:
      Momentum carries the second element on, against its new gradient:

      >>> import jax.numpy as jnp, optax, optax_extras
      >>> optimizer = optax_extras.cautious(optax.sgd(0.1, momentum=0.9))
      >>> params = jnp.zeros(2)
      >>> state = optimizer.init(params)
      >>> for grads in (jnp.array([1.0, 1.0]), jnp.array([1.0, -0.5])):
      ...     updates, state = optimizer.update(grads, state, params)
      >>> print(updates.round(2))
      [-0.38  0.  ]

    References:
      Liang et al. 2024, "Cautious Optimizers: Improving Training with One Line of
      Code", arXiv 2411.16085
    """
    inner = as_transformation("inner", inner)
    least = checks.number(
        "min_fraction", min_fraction, "in (0, 1]", lambda x: 0 < x <= 1
    )
    descent = checks.flag("descent", descent)

    def init(params: optax.Params) -> CautiousState:
        return CautiousState(inner.init(params))

    def update(
        updates: optax.Updates,
        state: CautiousState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CautiousState]:
        checks.check_updates(updates, params)
        moved, inner_state = update_without_missing(
            inner, updates, state.inner_state, params, **extra_args
        )
        kept = leaves.map_gradients(
            lambda g, u: _kept(jnp.asarray(g), jnp.asarray(u), descent, least),
            updates,
            moved,
        )
        return kept, CautiousState(inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _kept(g: jax.Array, update: jax.Array, descent: bool, least: Any) -> jax.Array:
    """The update of one leaf without what does not agree with the gradient, scaled."""
    u = barrier(update)  # once, whatever it costs
    dtype = dtypes.real_dtype(dtypes.compute_dtype(u.dtype))
    product = jnp.sign(g).astype(u.dtype) * jnp.sign(u)
    if jnp.iscomplexobj(u):
        product = jnp.sign(jnp.real(jnp.sign(g).conj() * jnp.sign(u)))
        is_left_out = product >= 0 if descent else product <= 0
    else:
        # Not by the product, which XLA would write to memory for both.
        up, down = (g >= 0, g <= 0) if descent else (g <= 0, g >= 0)
        is_left_out = (up & (u >= 0)) | (down & (u <= 0))
    # XLA:CPU fuses products into a sum, but writes comparisons to memory first.
    product = product.astype(dtype)
    square = product * product
    twice = jnp.sum(square - product if descent else square + product)
    fraction = twice / max(2 * u.size, 1)
    scale = 1 / jnp.maximum(fraction, scalars.scalar(least, dtype))
    # NaN is not left out.
    return jnp.where(is_left_out, 0, leaves.scaled(u, scale))
