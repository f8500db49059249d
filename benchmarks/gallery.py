"""Make pictures of docs/gallery.md from the figures of a report: smaller, with fewer colours.

python benchmarks/gallery.py results/reports/chicken_parts convergence label_efficiency accuracy_cost \
    pseudo_label_quality calibration score_iou
python benchmarks/gallery.py results/reports/demo examples      # of drawings: photos of others stay out of the project
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "gallery"
BYTES = 150_000
"""The most that a picture may have."""
WIDTH = 1000


def write(source: Path) -> None:
    """Write a figure as a PNG of WIDTH pixels with as many colours as BYTES allow."""
    figure, path = Image.open(source).convert("RGB"), FOLDER / source.name
    figure = figure.resize((WIDTH, round(figure.height * WIDTH / figure.width)), Image.Resampling.LANCZOS)
    for colours in (128, 64, 32):
        figure.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= BYTES:
            return
    sys.exit(f"{path}: more than {BYTES} bytes with 32 colours; choose a smaller figure")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        write(Path(sys.argv[1], f"{name}.png"))
