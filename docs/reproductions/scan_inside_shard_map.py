import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_num_cpu_devices", 8)
tx = optax.novograd(0.1)
mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))


@jax.shard_map(mesh=mesh, in_specs=jax.P("x"), out_specs=jax.P(None, "x"))
def train(p):
    return jax.lax.scan(lambda s, g: tx.update(g, s, p)[::-1], tx.init(p), p[None])[1]


train(jnp.ones((16, 4)))
