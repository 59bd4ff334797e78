"""AdaShift of mknbv/adashift: its average has not seen the first gradients.

The sum over the window is kept by adding what enters and taking out what leaves. The
first gradients enter the queue, but not the sum, out of which they are taken later.
"""

import numpy as np

n, b1 = 10, 0.9
gradients = np.random.default_rng(0).normal(size=(40, 1000))
weights = b1 ** np.arange(n) / (b1 ** np.arange(n)).sum()
total, far = np.zeros(1000), []
for t in range(n, 40):
    total = b1 * (total - weights[-1] * gradients[t - n]) + weights[0] * gradients[t]
    paper = weights @ gradients[t - n + 1 : t + 1][::-1]
    far.append(np.linalg.norm(total - paper) / np.linalg.norm(paper))

print(f"error of the average {far[0]:.0%} in the first step, {far[9]:.0%} in the tenth")
