import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_num_cpu_devices", 8)
tx = optax.contrib.prodigy(1.0)
mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Explicit,))
with jax.set_mesh(mesh):
    p = g = jnp.ones((16, 160), out_sharding=jax.P("x"))
    s = tx.init(p)
    tx.update(g, s, p)
