"""QHM of qhoptim for TensorFlow (qhoptim/tf/qhm.py): its trace is not damped.

It keeps a ← β a + g, and multiplies by (1 − β) in the step, with the β of that step.
"""

nu, trace, average = 0.7, 0.0, 0.0
for step in range(2001):
    beta = 0.999 if step < 2000 else 0.9
    trace = beta * trace + 1
    average = beta * average + (1 - beta)
found = (1 - nu) + nu * (1 - beta) * trace
paper = (1 - nu) + nu * average

print(f"after β falls to 0.9, a step of {found:.1f}, by the paper {paper:.2f}")
