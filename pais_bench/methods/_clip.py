"""Classify masks by a ConvNeXt CLIP network of open_clip, whose weights are a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pais_bench.errors import BenchError
from pais_bench.optional_packages import import_package
from pais_bench.study.yaml_file import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

SENTENCE = "a photo of a {}"
"""Describes a class where the user gives no description."""


class ClipClassifier:
    """Compare the features inside of each mask with descriptions of every class.

    The trunk sees the whole view in 0..255 without CLIP's normalisation, as in the release of PL-DC; features are
    averaged inside of the mask, and projected by CLIP's head. A class's logit is the mean of its descriptions' logits,
    weighted by their softmax.
    """

    def __init__(self, weights: Path, model: str, class_names: Sequence[str], descriptions: Path | None) -> None:
        """Load the network; raise BenchError where open_clip, the weights or a description is missing."""
        texts = read_descriptions(descriptions, class_names)
        path = weights.expanduser()
        if not path.is_file():
            raise BenchError(f"{path}: no such file; `clip` names the weights of open_clip's {model} on disk")
        open_clip = import_package("open_clip", "install the extra 'pais-bench[clip]' there", "clip: ")
        try:
            network = open_clip.create_model(model, pretrained=str(path)).eval().requires_grad_(False)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BenchError(
                f"{path}: open_clip cannot load it as {model} ({reason}); check clip and clip_model"
            ) from error
        if not hasattr(getattr(network.visual, "trunk", None), "forward_features"):
            raise BenchError(
                f"clip_model: {model} has no map of features; take a ConvNeXt, such as convnext_large_d_320"
            )
        tokenizer = open_clip.get_tokenizer(model)
        embedded = network.encode_text(tokenizer([text for of_class in texts for text in of_class]), normalize=True)
        self.counts = [len(of_class) for of_class in texts]
        self.texts: Tensor = embedded * network.logit_scale.exp().clamp(max=100)
        self.visual = network.visual

    def __call__(self, image: Tensor, masks: Tensor) -> Tensor:
        """Return the probabilities f32[N,C] of the classes of masks bool[N,H,W] in a view f32[3,H,W] in 0..1."""
        import torch
        from torch.nn import functional as F

        if not len(masks):
            return image.new_zeros((0, len(self.counts)))
        self.visual, self.texts = self.visual.to(image.device), self.texts.to(image.device)
        features = self.visual.trunk.forward_features(255 * image[None])[0].float()
        # A cell counts by the share of it that the mask covers, so that no mask is without a cell.
        inside = F.adaptive_avg_pool2d(masks.float()[None], features.shape[-2:])[0].flatten(1)
        pooled = inside @ features.flatten(1).T / inside.sum(1, keepdim=True).clamp(min=1e-6)
        embedded = self.visual.head(self.visual.trunk.head(pooled[:, :, None, None])).float()
        logits = F.normalize(embedded, dim=1) @ self.texts.T
        of_class = torch.split(logits, self.counts, 1)
        return torch.stack([join_descriptions(part) for part in of_class], 1).softmax(1)


def clip_share(progress: float) -> float:
    """Return CLIP's share in fused probabilities: from 0.5 down to 0 along a cosine, as progress goes from 0 to 1."""
    return 0.25 * (1 + math.cos(math.pi * progress))


def join_descriptions(logits: Tensor) -> Tensor:
    """Return one logit f32[N] of a class: the mean of those of its descriptions f32[N,n], weighted by their softmax."""
    return (logits * logits.softmax(1)).sum(1)


def read_descriptions(path: Path | None, class_names: Sequence[str]) -> list[list[str]]:
    """Read the descriptions of each class from a YAML file; without a file, there is one that has the class's name.

    Raises BenchError where a class has none.
    """
    if path is None:
        return [[SENTENCE.format(name)] for name in class_names]
    file = path.expanduser()
    if not file.is_file():
        raise BenchError(f"{file}: no such file; `descriptions` names a YAML file with a list of texts for each class")
    content = read_yaml(file)
    texts: dict[str, Any] = dict.fromkeys(class_names) | (content if isinstance(content, dict) else {})
    for name in class_names:
        of_class = texts[name]
        if not isinstance(of_class, list) or not of_class or not all(isinstance(text, str) for text in of_class):
            raise BenchError(f"{file}: no list of descriptions of the class '{name}'; add `{name}: [...]`")
    return [texts[name] for name in class_names]
