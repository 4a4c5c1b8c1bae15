"""Which of Lightning's strategies a wrapped module is trained with: those that were shown to train it right."""

from __future__ import annotations

from typing import Any

# By name, for both Lightning packages have them, and a strategy of the user's own derives from one of these.
_NOT_SHOWN = {
    "FSDPStrategy": "It needs accelerators, and version 2 of torch's FSDP, which is tested, does its work: "
    "strategy=ModelParallelStrategy(), and fully_shard(self.net, mesh=self.device_mesh['data_parallel']) in "
    "configure_model.",
    "DeepSpeedStrategy": "Its engine takes over the backward pass and the optimiser.",
}


def check_strategy(trainer: Any) -> None:
    """Refuse a strategy that was not shown to give the same weights as training on one device does.

    Raises:
        ValueError: FSDP's first version, or DeepSpeed.
    """
    names = [kind.__name__ for kind in type(trainer.strategy).__mro__]
    for name, reason in _NOT_SHOWN.items():
        if name in names:
            raise ValueError(
                f"{names[0]} was not shown to train against h1 as one device does, so it is refused. {reason} Tested "
                f"are 'ddp', 'ddp_spawn' and ModelParallelStrategy with fully_shard; where the model fits on each "
                f"device, use strategy='ddp'."
            )
