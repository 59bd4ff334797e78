import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_num_cpu_devices", 8)
tx = optax.sm3(0.1)
mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))
own = jax.NamedSharding(mesh, jax.P("x"))
p = jax.device_put({"w": jnp.ones((16, 4)), "b": jnp.ones(32)}, own)
s = [x for x in jax.tree.leaves(tx.init(p)) if x.shape in ((16, 4), (32,))]
assert all(x.sharding.is_equivalent_to(own, x.ndim) for x in s)
