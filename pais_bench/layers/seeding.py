"""Seed what a network draws about one image, so that neither its rank nor its neighbours in the batch matter."""

from __future__ import annotations

import torch


def seed_sampling(device: torch.device, seed: int | None) -> None:
    """Seed torch's global generators of the CPU and of one device; None leaves them as they are.

    torch.manual_seed seeds every kind of device that there is: 1 ms a call, and a step has several an image.
    """
    if seed is None:
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
