"""SRSGD of its authors (minhtannguyen/SRSGD, optimizers/srsgd.py): restarts.

The count begins at 1, and again at 1 as soon as it reaches the period. Only that of the
first group of parameters is advanced.
"""

groups, momenta = [1, 1], []
for _ in range(200):
    momenta.append([(count - 1) / (count + 2) for count in groups])
    groups[0] = 1 if groups[0] + 1 >= 40 else groups[0] + 1
first, second = zip(*momenta, strict=True)
starts = [t for t, mu in enumerate(first) if mu == 0]

print(
    f"a period of 40 restarts after {starts[1] - starts[0]} steps, and the second group"
    f" has a momentum of {max(second):.0f}"
)
