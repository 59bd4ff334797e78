import optax

tx = optax.contrib.sophia(0.1)
p = g = {}
s = tx.init(p)
u, s = tx.update(g, s, p, obj_fn=optax.tree.sum)
assert u == {}
