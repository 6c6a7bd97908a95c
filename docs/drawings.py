"""Draw the networks' diagrams, docs/pictures/*.svg: `.venv/bin/python docs/drawings.py`.

A drawing is boxes on a grid, (column, row), and arrows between them; text is plain Unicode.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
WIDE, HIGH, GAP_X, GAP_Y, MARGIN = 132, 50, 34, 22, 12
FILLS = {"image": "#dfeaf2", "local": "#f4f1ea", "global": "#f6dccb"}
"""Images, local operations, and what reads a value of the whole scene."""


@dataclass(frozen=True)
class Box:
    """`text`: at most two lines; `place` may be fractional."""

    text: str
    place: tuple[float, float]
    kind: str = "local"

    @property
    def corner(self) -> tuple[float, float]:
        col, row = self.place
        return MARGIN + col * (WIDE + GAP_X), MARGIN + row * (HIGH + GAP_Y)

    def svg(self) -> str:
        x, y = self.corner
        lines = self.text.split("\n")
        first = y + HIGH / 2 + 5 - 9 * (len(lines) - 1)
        spans = "".join(
            f'<tspan x="{x + WIDE / 2:g}" y="{first + 18 * i:g}">{escape(line)}</tspan>' for i, line in enumerate(lines)
        )
        return (
            f'<rect x="{x:g}" y="{y:g}" width="{WIDE}" height="{HIGH}" rx="5" fill="{FILLS[self.kind]}" '
            f'stroke="#555"/><text text-anchor="middle">{spans}</text>'
        )


def arrow(start: Box, end: Box) -> str:
    """From side to side where the boxes stand in different columns, else from bottom to top or back."""
    (x0, y0), (x1, y1) = start.corner, end.corner
    if x0 + WIDE <= x1:
        ends = x0 + WIDE, y0 + HIGH / 2, x1, y1 + HIGH / 2
    elif y0 < y1:
        ends = x0 + WIDE / 2, y0 + HIGH, x1 + WIDE / 2, y1
    else:
        ends = x0 + WIDE / 2, y0, x1 + WIDE / 2, y1 + HIGH
    return '<line x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}" stroke="#333" marker-end="url(#tip)"/>'.format(*ends)


def drawing(title: str, boxes: dict[str, Box], arrows: str) -> str:
    """An SVG; `arrows`: "a>b b>c", by the boxes' names."""
    pairs = [pair.split(">") for pair in arrows.split()]
    right = max(box.corner[0] for box in boxes.values()) + WIDE + MARGIN
    bottom = max(box.corner[1] for box in boxes.values()) + HIGH + MARGIN
    tip = '<path d="M0 0 8 4 0 8z" fill="#333"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:g} {bottom:g}" width="{right:g}" role="img" '
            'font-family="sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto">{tip}</marker></defs>',
            *(arrow(boxes[start], boxes[end]) for start, end in pairs),
            *(box.svg() for box in boxes.values()),
            "</svg>\n",
        ]
    )


DRAWINGS = {
    "adknet": drawing(
        "ADKNet: kernels that the PAN makes at every pixel and the scene for every channel",
        {
            "pan": Box("PAN", (0, 0), "image"),
            "ms": Box("MS", (0, 2), "image"),
            "guide": Box("5x5", (1, 0)),
            "up": Box("transposed conv.\n5x5", (1, 2)),
            "spatial": Box("spatial kernel\n9 taps a pixel", (2, 0)),
            "spectral": Box("spectral kernel\n9 taps a channel", (2, 1), "global"),
            "filter": Box("7 layers: x ⊛\nspatial · spectral", (3, 2)),
            "last": Box("3x3", (4, 2)),
            "skip": Box("transposed conv.", (3, 3)),
            "hrms": Box("+  HRMS", (5, 2), "image"),
        },
        "pan>guide guide>spatial ms>up up>filter up>spectral spatial>filter spectral>filter filter>last last>hrms "
        "ms>skip skip>hrms",
    ),
    "premix": drawing(
        "PreMix-B: features change places where a mask says so, then each pixel is filtered",
        {
            "ms": Box("EXP", (0, 0), "image"),
            "pan": Box("PAN", (0, 2), "image"),
            "encode_ms": Box("encoder", (1, 0)),
            "encode_pan": Box("encoder", (1, 2)),
            "mask": Box("mask M of\nthe sum", (2, 1)),
            "mixed_ms": Box("F + M (G - F)", (3, 0)),
            "mixed_pan": Box("G - M (G - F)", (3, 2)),
            "filter_ms": Box("3x3 kernel a\npixel, on EXP", (4, 0)),
            "filter_pan": Box("3x3 kernel a\npixel, on PAN", (4, 2)),
            "hrms": Box("+  HRMS", (5, 1), "image"),
        },
        "ms>encode_ms pan>encode_pan encode_ms>mask encode_pan>mask mask>mixed_ms mask>mixed_pan encode_ms>mixed_ms "
        "encode_pan>mixed_pan mixed_ms>filter_ms mixed_pan>filter_pan filter_ms>hrms filter_pan>hrms",
    ),
    "dmaconv": drawing(
        "DMAConv: few active pixels have kernels of their own, all others share one",
        {
            "x": Box("features x", (0, 1), "image"),
            "mask": Box("x · soft mask", (1, 1)),
            "threshold": Box("mean + 2 deviations\nof the activity", (2, 0), "global"),
            "focused": Box("focused: gates\nof the pixel", (3, 0)),
            "mean": Box("mean of the\nother pixels", (2, 1), "global"),
            "compact": Box("compact: one\nkernel for all", (3, 1)),
            "bias": Box("bias map, 3 x 3x3", (2, 2)),
            "out": Box("+", (4, 1), "image"),
        },
        "x>mask mask>threshold threshold>focused mask>mean mean>compact focused>out compact>out x>bias bias>out",
    ),
    "dmanet": drawing(
        "DMANet: a U-Net of blocks that are made of DMAConv",
        {
            "inputs": Box("PAN, EXP", (0, 0), "image"),
            "block1": Box("block, 32 channels\nfull size", (1, 0), "global"),
            "block2": Box("block, 64\na half", (1.6, 1), "global"),
            "block3": Box("block, 128\na quarter", (2.6, 2), "global"),
            "block4": Box("+  block, 64\na half", (3.6, 1), "global"),
            "block5": Box("+  block, 32\nfull size", (4.2, 0), "global"),
            "hrms": Box("+ EXP  HRMS", (5.2, 0), "image"),
        },
        "inputs>block1 block1>block2 block2>block3 block3>block4 block4>block5 block1>block5 block2>block4 block5>hrms",
    ),
    "per-band": drawing(
        "Ours: one network for every band, from a modulated band to a product that is consistent with the MS",
        {
            "ms": Box("MS, any bands", (0, 1), "image"),
            "pan": Box("PAN", (0, 0), "image"),
            "modulation": Box("each band\nmodulated by PAN", (1, 1), "global"),
            "network": Box("one network, the\nsame every band", (2, 0), "global"),
            "sum": Box("+", (3, 1)),
            "camera": Box("moved to look\nlike the MS", (4, 1)),
            "hrms": Box("HRMS", (5, 1), "image"),
        },
        "ms>modulation pan>modulation pan>network modulation>network modulation>sum network>sum sum>camera camera>hrms",
    ),
}

if __name__ == "__main__":
    for name, svg in DRAWINGS.items():
        (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")
