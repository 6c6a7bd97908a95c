"""A product does not depend on how the scene was cut: every network and every classical method, on real scenes with
gaps, off the grid, in tiles of several sizes, in any order."""

from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window

from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.canvas import SceneCanvas
from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.interpolation import area_phase
from pansharpen_cli.mtf import SENSORS
from pansharpen_cli.networks import NETWORKS, build
from pansharpen_cli.networks.network import Frozen
from pansharpen_cli.pipeline import Job, sharpen
from pansharpen_cli.radiometry import Radiometry, quantise
from pansharpen_cli.scene import Scene
from pansharpen_cli.tiling import Reach

SMALL = {
    "adknet": {"channels": 16, "layers": 3},
    "premix-b": {"channels": 16},
    "premix-h": {"channels": 8},
    "dmanet": {"widths": (16, 16, 16)},
}
THRESHOLDED = ("dmanet", "dma-fusionnet", "dma-lagnet")
"""Their kernels change where a pixel passes a threshold: rounding decides on it, and tells in its surroundings."""
CROP = 64
TILES = (128, 256, 512)
MARGIN = 1e-5


@dataclass(frozen=True)
class Case:
    """A part of a real scene, PAN pixels, and the shift (dx, dy) it is served with."""

    folder: str
    rows: slice
    cols: slice
    shift: tuple[float, float]

    def write(self, data, folder):
        """Both files of the part."""
        with rasterio.open(data / self.folder / "pan.tif") as pan, rasterio.open(data / self.folder / "ms.tif") as ms:
            ratio = round(ms.transform.a / pan.transform.a)
            for name, source, scale in (("pan", pan, 1), ("ms", ms, ratio)):
                rows, cols = (slice(s.start // scale, s.stop // scale) for s in (self.rows, self.cols))
                window = Window.from_slices(rows, cols)
                profile = source.profile | {
                    "height": window.height,
                    "width": window.width,
                    "transform": source.window_transform(window),
                }
                with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
                    file.write(source.read(window=window))
                    file.descriptions = source.descriptions
        return folder / "pan.tif", folder / "ms.tif"


# rotterdam_2: a slanted edge of nodata; madrid: PAN and MS half a pixel apart, ratio 2
CASES = {
    4: Case("wv2_rotterdam_2", slice(0, 600), slice(160, 320), (-1.37, 0.9)),
    2: Case("l8_plain_a", slice(0, 160), slice(0, 512), (0.0, 0.0)),
}


@pytest.fixture(scope="module", params=CASES, ids=[f"ratio {ratio}" for ratio in CASES])
def case(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    return CASES[request.param], CASES[request.param].write(data, folder)
