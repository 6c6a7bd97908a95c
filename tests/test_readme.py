"""What the README promises in code runs."""

import re
import shutil
from pathlib import Path

import pytest
import rasterio

ROOT = Path(__file__).parents[1]


def test_the_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(ROOT / "examples/l8_madrid" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    assert "Shift(" in capsys.readouterr().out
    with rasterio.open("out.tif") as product, rasterio.open("pan.tif") as pan:
        assert product.crs == pan.crs
        assert product.transform == pan.transform
        assert product.descriptions == ("red", "green", "blue")


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page: str):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target
