"""Steps of torch and torchao for `memory.py`: one for each name read, in float32."""

import sys
from collections.abc import Callable

import torch


def optimizers() -> dict[str, Callable[[list[torch.Tensor]], torch.optim.Optimizer]]:
    """What makes the optimizers."""
    from torchao import optim

    return {
        "torch AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3),
        "torch AdamW, fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
        "torchao AdamW8bit": lambda p: optim.AdamW8bit(p, lr=1e-3),
        "torchao AdamW4bit": lambda p: optim.AdamW4bit(p, lr=1e-3),
    }


def main() -> None:
    """Answers each name with "ok" after a step, or with what went wrong."""
    rows = int(sys.argv[1]) // 1024
    made: dict[str, torch.optim.Optimizer] = {}
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in made:
                params = torch.zeros(rows, 1024, requires_grad=True)
                params.grad = torch.ones(rows, 1024)
                made[name] = optimizers()[name]([params])
            made[name].step()
            answer = "ok"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        print(answer, flush=True)


if __name__ == "__main__":
    main()
