"""diffGrad of its authors (diffGrad.py): the last gradient is the present one.

It keeps a reference to the gradient's own memory, which the next backward pass writes
to where gradients are set to zero in place.
"""

import numpy as np

memory, kept = np.zeros(1), np.zeros(1)
frictions = []
for value in (3.0, -3.0, 3.0):
    memory[:] = value
    frictions.append(1 / (1 + np.exp(-abs(kept - memory)[0])))
    kept = memory

paper = [1 / (1 + np.exp(-abs(x))) for x in (3.0, 6.0, 6.0)]
texts = (", ".join(f"{x:.3f}" for x in values) for values in (frictions, paper))
print("friction {}; by the paper {}".format(*texts))
