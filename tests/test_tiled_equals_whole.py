"""A product does not depend on how the scene was cut: every network and every classical method, on parts of real scenes
that have gaps and lie off the grid, in tiles of several sizes, in any order."""

import random
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from test_zoo import random_model

from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.radiometry import Radiometry, quantise
from pansharpen_cli.inputs.canvas import ArrayCanvas, SceneCanvas
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.networks import NETWORKS, build
from pansharpen_cli.networks.network import Frozen, PerImage
from pansharpen_cli.pipeline import sharpen

SIZES = (128, 256, 512)
WHOLE = 10**6

SMALL = {
    "adknet": {"channels": 16, "layers": 3},
    "adknet-per-band": {"channels": 16, "layers": 3},
    "premix-b": {"channels": 16},
    "premix-b-per-band": {"channels": 16},
    "premix-h": {"channels": 32},
    "dmanet": {"widths": (32, 32, 32)},
    "dmanet-per-band": {"widths": (16, 16, 16)},
}
"""Options that keep the tests short; widths are multiples of 8, as those of real models are."""

THRESHOLDED = {"dmanet", "dmanet-per-band", "dma-fusionnet", "dma-lagnet"}
"""A pixel on its threshold may go either way by rounding, and its surroundings with it, without a transition."""
ON_THRESHOLD = 1e-6


@dataclass(frozen=True)
class Part:
    """A part of a real scene, in PAN pixels, and the shift (dx, dy) it is served with."""

    folder: str
    rows: slice
    cols: slice
    shift: tuple[float, float]

    def write(self, data, folder):
        """Its PAN and MS, as files."""
        with rasterio.open(data / self.folder / "pan.tif") as pan, rasterio.open(data / self.folder / "ms.tif") as ms:
            ratio = round(ms.transform.a / pan.transform.a)
            return cut_out(pan, folder, self.rows, self.cols, 1), cut_out(ms, folder, self.rows, self.cols, ratio)


def cut_out(source, folder, rows, cols, ratio):
    window = Window.from_slices(*(slice(s.start // ratio, s.stop // ratio) for s in (rows, cols)))
    size = {"height": window.height, "width": window.width, "transform": source.window_transform(window)}
    path = folder / f"{ratio}.tif"
    with rasterio.open(path, "w", **source.profile | size) as file:
        file.write(source.read(window=window))
        file.descriptions = source.descriptions
    return path


PARTS = {
    4: Part("wv2_rotterdam_2", slice(0, 520), slice(180, 268), (-1.37, 0.9)),  # a slanted edge of nodata runs through
    2: Part("l8_madrid", slice(400, 472), slice(200, 732), (0.0, 0.0)),  # the PAN lies half a pixel off
}


@pytest.fixture(scope="module", params=PARTS, ids=[f"ratio {ratio}" for ratio in PARTS])
def part(request, data, tmp_path_factory):
    """(the part, its open scene)."""
    chosen = PARTS[request.param]
    with Scene.open(*chosen.write(data, tmp_path_factory.mktemp("part"))) as scene:
        yield chosen, scene


def product(sharpener, canvas, size):
    """(bands, H, W) from tiles of `size` PAN pixels in a random order: every pixel once, NaN where there was none."""
    tiles = canvas.tiles(size, sharpener.backend.reach)
    random.Random(size).shuffle(tiles)
    hrms = np.full((len(sharpener.order), canvas.rows.stop, canvas.cols.stop), np.nan, np.float32)
    for tile in tiles:
        assert np.isnan(hrms[:, *tile.core]).all()
        hrms[:, *tile.core] = sharpener(canvas.read(tile))
    return hrms[:, canvas.rows.start :, canvas.cols.start :]


def check(sharpener, canvas, tolerance, watching=None):
    """All sizes against the whole; `watching` tells which of its pixels may differ."""
    with watching or nullcontext() as unsure:
        whole = product(sharpener, canvas, WHOLE)
    assert whole.shape[1] > max(SIZES) or whole.shape[2] > max(SIZES)
    assert np.isfinite(whole).all()
    rounded = []  # one rate for all sizes: a hundred thousand pixels of one are too few to tell 1e-5
    for size in SIZES:
        tiled = product(sharpener, canvas, size)
        off = np.abs(tiled - whole).max(axis=0) > tolerance * np.ptp(whole)
        if unsure is None:
            assert not off.any()
        else:
            assert not (off & ~unsure).any()
            assert off.mean() < 0.05
        different = quantise(tiled, np.dtype("uint16"), 0) != quantise(whole, np.dtype("uint16"), 0)
        rounded.append(different[:, ~off].ravel())
    assert np.concatenate(rounded).mean() <= 1e-5


@contextmanager
def watching_thresholds(network, canvas):
    """Gives (H, W), which becomes True where a value hangs on a pixel that lies on its threshold."""
    fuse = network.fuse
    unsure = np.zeros((canvas.grid.height, canvas.grid.width), bool)

    class Watching(Frozen):
        def __call__(self, name, reduce, *maps):
            value = super().__call__(name, reduce, *maps)
            if name.endswith(".threshold"):
                near = ((maps[0] - value[:, :, None, None]).abs() < ON_THRESHOLD).float()
                if near.any():
                    full = F.interpolate(near, size=(canvas.rows.size, canvas.cols.size))
                    around = F.max_pool2d(full, 2 * network.halo + 1, 1, network.halo)[0, 0].bool().numpy()
                    unsure[:] |= around[canvas.rows.start : canvas.rows.stop, canvas.cols.start : canvas.cols.stop]
            return value

    network.fuse = lambda pan, ms, pooling: fuse(pan, ms, Watching(pooling.statistics))
    yield unsure
    network.fuse = fuse


@pytest.mark.parametrize("name", METHODS)
def test_classical_methods(name, part):
    chosen, scene = part
    backend = METHODS[name](Camera.of_scene(scene.ratio, scene.band_names, SENSORS["generic"]))
    canvas = SceneCanvas.of(scene, shift=Displacement(*chosen.shift), reach=backend.reach)
    order = tuple(range(len(scene.band_names)))
    check(Sharpener.observing(backend, None, canvas, order, 200), canvas, 1e-6)


MEMBERS = [{"network": name, "options": SMALL[name]} for name in ("adknet-per-band", "premix-h")]
VARIANTS = [
    ("adknet", {}, Radiometry("fixed", 2047.0, 2047.0)),
    ("premix-b", {"consistent": True}, Radiometry("scene")),
    ("adknet-per-band", {"consistent": True, "modulated": True}, Radiometry("scene")),
    ("premix-b-per-band", {"consistent": True, "modulated": True}, Radiometry("scene")),
    ("dmanet", {"transition": 1.0}, Radiometry("scene")),
    ("dmanet-per-band", {"consistent": True, "modulated": True, "transition": 1.0}, Radiometry("scene")),
    ("mixture", {"consistent": True, "members": MEMBERS}, Radiometry("scene")),
]


@pytest.mark.parametrize(
    ("name", "options", "radiometry"), [(name, {}, Radiometry("scene")) for name in NETWORKS] + VARIANTS
)
def test_networks(name, options, radiometry, part):
    chosen, scene = part
    torch.manual_seed(3)
    network = build(name, len(scene.band_names), scene.ratio, SMALL.get(name, {}) | options).eval()
    backend = TorchBackend(network, 64, torch.device("cpu"))
    canvas = SceneCanvas.of(
        scene, phase=area_phase(scene.ratio), shift=Displacement(*chosen.shift), reach=backend.reach
    )
    sharpener = Sharpener.observing(backend, radiometry, canvas, tuple(range(network.bands)), 256)
    if name in THRESHOLDED and not options.get("transition"):
        check(sharpener, canvas, 1e-5, watching_thresholds(network, canvas))
    else:
        check(sharpener, canvas, 1e-6)


def test_a_network_that_takes_its_values_from_each_tile_would_be_caught():
    """The papers' behaviour: the test above can fail."""
    generator = np.random.default_rng(5)
    pan, ms = generator.normal(size=(1, 544, 80)), generator.normal(size=(4, 136, 20))
    torch.manual_seed(3)
    network = build("adknet", 4, 4, SMALL["adknet"]).eval()
    fuse = network.fuse
    backend = TorchBackend(network, 64, torch.device("cpu"))
    canvas = ArrayCanvas.of(pan.astype(np.float32), ms.astype(np.float32), reach=backend.reach)
    sharpener = Sharpener.observing(backend, None, canvas, (0, 1, 2, 3), 256)
    check(sharpener, canvas, 1e-6)
    network.forward = lambda pan, ms, statistics: fuse(pan, ms, PerImage())
    with pytest.raises(AssertionError):
        check(sharpener, canvas, 1e-6)


@pytest.mark.parametrize(("network", "tiles"), [("premix-h", (64, 200)), ("adknet", (100, 160))])
def test_files(network, tiles, data, tmp_path, monkeypatch):
    """From the files to the product."""
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))
    random_model(tmp_path / "models" / "random", network, **SMALL.get(network, {}))
    part = Part("wv2_rotterdam_2", slice(40, 260), slice(100, 280), (0, 0))
    pan, ms = part.write(data, tmp_path)
    images = []
    for tile in (None, *tiles):
        output = tmp_path / f"{tile}.tif"
        sharpen(Job(pan, [ms], output, model="random", coregister=(-1.37, 0.9), tile=tile, threads=1))
        with rasterio.open(output) as file:
            images.append(file.read())
    for image in images[1:]:
        assert np.array_equal(image == 0, images[0] == 0)
        assert (image != images[0]).mean() <= 1e-5
