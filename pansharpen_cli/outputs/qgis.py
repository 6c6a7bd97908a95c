"""A style beside a product: by it QGIS shows what the quicklook shows, by itself the first three bands."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from pansharpen_cli.outputs.quicklook import stretch, write_made

Band = tuple[int, float, float]
"""Its number, from 1, and its values that become black and white."""


def style_beside(product: Path) -> Path:
    """Where QGIS looks for the style of a raster file."""
    return product.with_suffix(".qml")


def write_style(product: Path) -> None:
    """Write the style of `product` beside it. Raises OutputError if that cannot be."""
    write_made(
        style_beside(product), product, lambda: tostring(_style(stretch(product)), "utf-8", xml_declaration=True)
    )


def _style(bands: list[Band]) -> Element:
    """The part of a QGIS 3 layer style that says which bands are shown and how they are stretched."""
    root = Element("qgis", version="3.0", styleCategories="Symbology")
    renderer = SubElement(SubElement(root, "pipe"), "rasterrenderer", opacity="1", alphaBand="-1")
    if len({number for number, *_ in bands}) == 1:
        renderer.set("type", "singlebandgray")
        renderer.set("grayBand", str(bands[0][0]))
        _contrast(renderer, "contrastEnhancement", bands[0])
        return root
    renderer.set("type", "multibandcolor")
    for colour, band in zip(("red", "green", "blue"), bands, strict=True):
        renderer.set(f"{colour}Band", str(band[0]))
        _contrast(renderer, f"{colour}ContrastEnhancement", band)
    return root


def _contrast(renderer: Element, name: str, band: Band) -> None:
    _, dark, bright = band
    contrast = SubElement(renderer, name)
    for key, value in (("minValue", dark), ("maxValue", bright), ("algorithm", "StretchToMinimumMaximum")):
        SubElement(contrast, key).text = str(value)
