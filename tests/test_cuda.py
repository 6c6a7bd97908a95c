"""On a GPU: the pixels of the CPU, however the scene is cut, and an error in one sentence where its memory ends."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from test_tiled_equals_whole import SMALL
from test_zoo import random_model

from pansharpen_cli import models as zoo_models
from pansharpen_cli import sharpen
from pansharpen_cli.errors import DeviceError
from pansharpen_cli.networks import NETWORKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MADRID = Path(__file__).resolve().parents[1] / "examples" / "l8_madrid"
RGB = ("red", "green", "blue")
SHIPPED = [model.name for model in zoo_models() if model.spec.ratio == 2 and len(model.spec.bands) in {0, 3}]


def product(folder, model, device, **options):
    """(bands, H, W) of the scene of Madrid, in DN with all their digits."""
    path = folder / f"{device}-{options.get('tile')}.tif"
    made = sharpen(MADRID / "pan.tif", MADRID / "ms.tif", path, model=model, device=device, dtype="float32", **options)
    assert made.device.startswith(device)
    with rasterio.open(path) as file:
        return file.read()


def model_of(name, folder):
    """A shipped model, or a small network with random weights."""
    return (
        name
        if name in SHIPPED
        else str(random_model(folder / name, name, bands=RGB, ratio=2, **SMALL.get(name, {})).folder)
    )


@pytest.mark.parametrize("name", [*SHIPPED, *NETWORKS])
def test_a_gpu_makes_the_pixels_of_the_cpu(name, tmp_path):
    model = model_of(name, tmp_path)
    on_cpu, on_gpu = (product(tmp_path, model, device) for device in ("cpu", "cuda"))
    different = np.abs(on_gpu - on_cpu) > 1e-5 * np.ptp(on_cpu)
    print(name, f"{np.abs(on_gpu - on_cpu).max() / np.ptp(on_cpu):.1e}", different.mean())
    # pixels that lie on a threshold, or on a level of PreMix-H's equalised picture, may go either way
    assert different.mean() <= (0.02 if "dma" in name or name == "premix-h" else 0)


@pytest.mark.parametrize("name", [*SHIPPED, *NETWORKS])
def test_tiled_equals_whole_on_a_gpu(name, tmp_path):
    model = model_of(name, tmp_path)
    whole, tiled = (product(tmp_path, model, "cuda", tile=tile) for tile in (2048, 192))
    different = np.abs(tiled - whole) > 1e-6 * np.ptp(whole)
    print(name, f"{np.abs(tiled - whole).max() / np.ptp(whole):.1e}", different.mean())
    assert different.mean() <= (0.02 if "dma" in name or name == "premix-h" else 0)


def test_the_same_each_time(tmp_path):
    model = model_of(SHIPPED[0], tmp_path)
    first = product(tmp_path, model, "cuda")
    assert np.array_equal(product(tmp_path, model, "cuda", tile=None, overwrite=True), first)


def test_a_tile_that_is_too_large_is_sharpened_in_halves(tmp_path):
    model = model_of(SHIPPED[0], tmp_path)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    small = product(tmp_path, model, "cuda", tile=256)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.5 * torch.cuda.max_memory_reserved() / total)
    try:
        large = product(tmp_path, model, "cuda", tile=1024, overwrite=True)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(large, small, rtol=0, atol=1)


def test_too_little_memory_is_one_sentence(tmp_path):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(DeviceError, match="too little free"):
            product(tmp_path, model_of(SHIPPED[0], tmp_path), "cuda", tile=1024)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not list(tmp_path.glob("cuda*"))
