"""Predict masks with a coarse map beside the fine one, which bends less to a label's noisy boundary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NoiseTolerantPredictor(nn.Module):
    """Predict masks from a fine and a coarse map, of which the coarse one bends less to a label's noisy boundary.

    Both branches start from the shared mask features; the coarse map is doubled in size and joins the fine one in a
    1x1 convolution [Noisy Boundaries, CVPR 2022].
    """

    def __init__(self, features: int, channels: int, classes: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(features, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 3, padding=1),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(features, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 1),
        )
        self.upsample = nn.ConvTranspose2d(classes, classes, 2, stride=2)
        self.join = nn.Conv2d(2 * classes, classes, 1)

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map features f32[n,c,14,14] to the joined logits f32[n,C,28,28]; in training mode
        to (joined, coarse), where the coarse ones are f32[n,C,14,14].
        """
        coarse = self.coarse(features)
        joined: Tensor = self.join(torch.cat((self.fine(features), self.upsample(coarse)), 1))
        return (joined, coarse) if self.training else joined
