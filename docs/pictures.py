"""Draw docs/pictures/madrid.png, PAN | MS | HRMS: run `make demo`, then `.venv/bin/python docs/pictures.py`."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window, from_bounds

ROOT = Path(__file__).parents[1]
CROP = Window(420, 340, 300, 300)  # of the product, in PAN pixels
ZOOM = 2
GAP = 8


def stretched(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """(bands, h, w) as bytes, between the 1st and 99th percentile of each band of `like`."""
    low, high = np.percentile(like, (1, 99), axis=(1, 2))[:, :, None, None]
    return (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def enlarged(image: np.ndarray, size: int) -> np.ndarray:
    """Pixels repeated to `size`."""
    index = np.arange(size) * image.shape[-1] // size
    return image[:, index][:, :, index]


with rasterio.open(ROOT / "demo-output/madrid.tif") as product:
    hrms = product.read((1, 2, 3), window=CROP).astype(float)
    bounds = product.window_bounds(CROP)
images = {}
for name in ("pan", "ms"):
    with rasterio.open(ROOT / f"examples/l8_madrid/{name}.tif") as file:
        window = from_bounds(*bounds, transform=file.transform).round_offsets().round_lengths()
        images[name] = file.read(window=window).astype(float)

size = ZOOM * CROP.width
panels = [
    enlarged(stretched(images["pan"], images["pan"]).repeat(3, axis=0), size),
    enlarged(stretched(images["ms"], images["ms"]), size),
    enlarged(stretched(hrms, images["ms"]), size),
]
gap = np.full((3, size, GAP), 255, np.uint8)
picture = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=2)
target = ROOT / "docs/pictures/madrid.png"
target.parent.mkdir(exist_ok=True)
with rasterio.open(target, "w", driver="PNG", width=picture.shape[2], height=size, count=3, dtype="uint8") as file:
    file.write(picture)
target.with_suffix(".png.aux.xml").unlink(missing_ok=True)
