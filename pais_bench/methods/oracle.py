"""Train on the held-out labels of the unlabelled images: what a teacher without a fault would give.

It is no method, but the bound of all: where it is hardly above supervised, no pseudo-labels can gain more with the same
network, views and steps. Unlabelled images that have no labels are left out.
"""

from __future__ import annotations

from pais_bench.methods.base import MethodBase, MethodOptions


class Options(MethodOptions):
    """Set the weight of the images whose labels are held out."""


class Method(MethodBase):
    """Learn every object of a strong view with weight 1, and what no object is as background."""

    learns_held_out_labels = True
    term_weights = {"mask_iou": 1.0, "semantic": 1.0}
