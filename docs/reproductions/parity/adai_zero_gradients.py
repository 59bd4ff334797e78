"""Adai of its authors (zeke-xie/adaptive-inertia-adai): one gradient of zeros.

Squares are divided by their mean, which is 0 then; what follows is an average of NaN.
"""

import numpy as np

m, v, product = np.zeros(3), np.zeros(3), np.ones(3)
for t, gradient in enumerate([np.zeros(3), np.ones(3), np.ones(3)], start=1):
    v = 0.99 * v + 0.01 * gradient**2
    debiased = v / (1 - 0.99**t)
    with np.errstate(invalid="ignore"):
        share = debiased / debiased.mean()
    b1 = np.clip(1 - 0.1 * share, 0, 1 - 1e-3)
    product, m = product * b1, b1 * m + (1 - b1) * gradient
    step = m / (1 - product)

print(f"the third step is {step[0]}")
