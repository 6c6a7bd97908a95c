"""Quality of products: the field's metrics, with the definitions of its toolbox, on scenes of any size.

`reduced` compares with a truth (Wald's protocol), `full` does without one.
"""

from pansharpen_cli.metrics.full_resolution import FULL, OPTIONAL, FullReport, full
from pansharpen_cli.metrics.image import ArrayImage, Image
from pansharpen_cli.metrics.reduced_resolution import PRESETS, REDUCED, ReducedReport, reduced
from pansharpen_cli.metrics.streaming import Score

__all__ = [
    "FULL",
    "OPTIONAL",
    "PRESETS",
    "REDUCED",
    "ArrayImage",
    "FullReport",
    "Image",
    "ReducedReport",
    "Score",
    "full",
    "reduced",
]
