"""Build tiny networks of SAM and SAM 2 with random weights, and a stand-in that segments boxes and points."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

PARAMETERS = {"sam": 24_549, "sam2": 117_640}
SAM: dict[str, dict[str, Any]] = {
    "vision_config": {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "initializer_range": 0.02,  # at the default of 1e-10 all masks are equal
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}
SAM2: dict[str, dict[str, Any]] = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "image_size": [128, 128],
            "window_positional_embedding_background_size": [4, 4],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 2, 4, 2],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
}


@cache
def network(kind: str) -> Any:
    """Return a tiny network of transformers with random weights, frozen."""
    import transformers

    torch.manual_seed(0)
    config = transformers.SamConfig(**SAM) if kind == "sam" else transformers.Sam2Config(**SAM2)
    built = transformers.SamModel(config) if kind == "sam" else transformers.Sam2Model(config)
    return built.eval().requires_grad_(False)


def any_network() -> Any:
    """Return a tiny SAM 2, or the stand-in where transformers is not installed."""
    return network("sam2") if find_spec("transformers") else StandIn()


class StandIn(nn.Module):
    """Segment a box whole, and of points the square around their mean; of three masks it is the second.

    Its input and its maps have 128 px.
    """

    estimates = (0.2, 0.9, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="sam2", prompt_encoder_config=SimpleNamespace(image_size=128))

    def get_image_embeddings(self, pixels: Tensor) -> list[Tensor]:
        assert pixels.shape == (1, 3, 128, 128)
        return [pixels]

    def forward(
        self,
        image_embeddings: list[Tensor],
        multimask_output: bool,
        input_boxes: Tensor | None = None,
        input_points: Tensor | None = None,
    ) -> SimpleNamespace:
        assert multimask_output
        if input_points is not None:
            centre = input_points[0].mean(1)
            boxes = torch.cat((centre - 16, centre + 16), 1)
        else:
            assert input_boxes is not None
            boxes = input_boxes[0]
        x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
        cells = torch.arange(128, dtype=boxes.dtype, device=boxes.device) + 0.5
        x, y = cells[None, None], cells[None, :, None]
        inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
        maps = torch.stack((inside | True, inside, inside & False), 1)
        return SimpleNamespace(
            pred_masks=8 * maps[None].to(boxes) - 4,
            iou_scores=boxes.new_tensor(self.estimates).expand(1, len(boxes), 3),
        )
