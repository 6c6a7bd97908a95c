"""Take the pictures of docs/report.md: `python docs/report_pictures.py SCENES`, with Chromium installed.

SCENES is a folder of scenes, each a folder with pan.tif and ms.tif: l8_momotombo (Landsat 8), wv2_rotterdam_2
(SpaceNet 6, CC BY-SA 4.0) and wv2_urban_w (WorldView-2, eight bands). Of the last only numbers and maps of indices are
shown: its imagery may not be passed on.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.report.gather import gather
from pansharpen_cli.report.page import write

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from browser import Page, chromium  # noqa: E402

PICTURES = ROOT / "docs/pictures"
WIDTH, MARGIN = 1160, 20
PHONE = (390, 1250)
"""Pixels of the window and height of what is shown of a section."""


def report(scene: Path, folder: Path, *models: str) -> Path:
    """The page of a scene's products by `models`."""
    products = []
    for model in models:
        product = folder / f"{scene.name}{'' if model == 'auto' else f'_{model}'}.tif"
        if not product.exists():
            sharpen(Job(str(scene / "pan.tif"), [str(scene / "ms.tif")], product, model=model))
        products.append(product)
    page = folder / f"{scene.name}_{len(models)}.html"
    write(gather(products), page)
    return page


def take(page: Page, report: Path, parts: list[str], width: int = WIDTH, click: str = "", **media: str) -> np.ndarray:
    """(row, col, 3): the `parts` of a page, by selector, one below the other; two of the crops. `click` comes first."""
    page.open(report, width, 900, **media)
    shown = ", ".join(parts)
    if click:
        page.run(f"document.querySelector({click!r}).click()")
    page.run(
        f"""[...document.querySelectorAll('body > *, main > *')].forEach(part => {{
            if (!part.matches('main') && !part.matches({shown!r})) part.style.display = 'none';
        }});
        [...document.querySelectorAll('.crop:nth-child(n+3)')].forEach(crop => crop.remove());
        document.body.style.padding = '0 {MARGIN}px {MARGIN}px';"""
    )
    height = page.run("Math.ceil(document.body.getBoundingClientRect().height)")
    return page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})


def phone(page: Page, report: Path) -> np.ndarray:
    """Four sections of a page as a phone shows them, side by side."""
    sections = "header, nav", "#look", "#quality", "#alignment"
    columns = [take(page, report, [part], PHONE[0])[: PHONE[1]] for part in sections]
    gap = np.full((PHONE[1], 24, 3), 128)
    filled = [np.concatenate([c, np.repeat(c[-1:], PHONE[1] - len(c), axis=0)]) for c in columns]
    return np.concatenate([part for column in filled for part in (column, gap)][:-1], axis=1)


def save(name: str, picture: np.ndarray, width: int = 760) -> None:
    """As a picture of `width` pixels."""
    image = Image.fromarray(picture.astype(np.uint8))
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.save(PICTURES / f"report-{name}.jpg", quality=85, subsampling=0, optimize=True)


def main(scenes: Path) -> None:
    madrid = ROOT / "examples/l8_madrid"
    with TemporaryDirectory() as place, chromium(Path(place) / "profile") as page:
        folder = Path(place)
        save("landsat", take(page, report(madrid, folder, "auto"), ["header", "nav", "#scene", "#look"]))
        compared = report(madrid, folder, "auto", "gsa", "exp")
        save("compare", take(page, compared, ["header", "nav", "#quality"]))
        nodata = report(scenes / "wv2_rotterdam_2", folder, "auto")
        infrared = "input[value=infrared]"
        save("nodata", take(page, nodata, ["#look", "#alignment"], click=infrared, prefers_color_scheme="dark"))
        eight = report(scenes / "wv2_urban_w", folder, "auto")
        save("8-bands", take(page, eight, ["header", "#quality", "#colour", "#numbers"]))
        save("phone", phone(page, report(scenes / "l8_momotombo", folder, "auto")), 1000)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
