"""Imports point down only, and heavy packages stay where they belong: read from the sources, not from what happens to
be loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pansharpen_cli"

LAYERS = (
    ("errors",),
    ("system",),
    # values and arrays; no rasters, no torch
    ("imaging",),
    ("modelspec", "metrics"),
    # the methods, and what they are to a caller
    ("backends.backend", "backends.halves", "backends.onnx_file", "classical", "networks"),
    # files and devices
    ("backends.onnx_runtime", "backends.torch_backend", "outputs", "zoo"),
    ("backends.export_operators", "backends.onnx_backend", "inputs"),
    ("backends.export",),
    # a scene and a method brought together
    ("backends.sharpener", "method", "official"),
    ("backends.limited",),
    # the verbs
    ("job",),
    ("cluster", "doctor", "parity", "pipeline"),
    ("upload",),
    ("evaluation", "resume", "stac"),
    ("report",),
    ("batch", "training"),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A module may import what stands in a lower row, or in its own package."""

PURE = {name for row in LAYERS[:4] for name in row}

HOMES = {
    "numba": {"system.compiled", "networks.vectors"},
    "llvmlite": {"networks.vectors"},
    "rasterio": {
        "inputs.blocks",
        "inputs.mosaic",
        "inputs.raster",
        "inputs.sidecars",
        "outputs.draft",
        "outputs.layout",
        "outputs.readback",
        "outputs.writer",
        "outputs.quicklook",
        "upload",
    },
    "torch": {"networks", "training", "official"}
    | {"backends.torch_backend", "backends.export", "backends.export_operators"},
    "safetensors": {"official", "zoo"},
    "onnxruntime": {"backends.onnx_runtime"},
    "onnx": {"backends.export_operators"},
    "onnx_ir": {"backends.export"},
    "onnxscript": {"backends.export", "backends.export_operators"},
    "typer": {"cli"},
    "tqdm": {"cli"},
    "h5py": {"evaluation.benchmark"},
    "scipy": {"evaluation.benchmark"},
    "matplotlib": {"evaluation.figure", "training.pictures"},
    "PIL": {"report.pictures"},
    "jinja2": {"report.page"},
    "distributed": set(),
    "pystac": set(),
}
"""Where a package may be imported; a name stands for its sub-modules too."""

LAZILY = {
    *{("torch", "cli.train"), ("torch", "doctor"), ("rasterio", "doctor"), ("safetensors", "zoo")},
    *{("distributed", "cluster"), ("pystac", "stac")},
    *{("h5py", "evaluation.benchmark"), ("scipy", "evaluation.benchmark")},
    *{("matplotlib", "evaluation.figure"), ("matplotlib", "training.pictures")},
}
"""... and where else, or only, inside functions: the package is loaded when the function is called."""


def modules():
    """Every module of the package, dotted and without the package's name; "" is the package itself."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def is_within(module, name):
    return module == name or module.startswith(f"{name}.")


def imports(path):
    """(imported module, is at module level) of every import that is executed: none under TYPE_CHECKING."""

    def visit(node, at_top):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                yield from visit(child, at_top)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:  # from package import module, or from module import thing
                inner = f"{node.module}.{alias.name}".removeprefix("pansharpen_cli.")
                yield (f"pansharpen_cli.{inner}" if inner in MODULES else node.module), at_top
        inside = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def own_imports(module):
    """Modules of this package that `module` imports, lazily or not."""
    names = {name for name, _ in imports(MODULES[module])}
    return {n.removeprefix("pansharpen_cli").removeprefix(".") for n in names if is_within(n, "pansharpen_cli")}


def layer(module):
    """Row of LAYERS, and the entry there that `module` belongs to."""
    found = [(row, name) for row, names in enumerate(LAYERS) for name in names if is_within(module, name)]
    assert len(found) == 1, f"{module} has {len(found)} places in LAYERS; give it one"
    return found[0]


EMPTY = {"", *(name for name, path in MODULES.items() if path.name == "__init__.py" and not own_imports(name))}
"""Packages that only name themselves: the front door, which loads what it is asked for, and folders."""

PLACED = [module for module in MODULES if module not in EMPTY]


@pytest.mark.parametrize("module", PLACED)
def test_imports_point_down(module):
    row, home = layer(module)
    for imported in own_imports(module) - EMPTY:
        other_row, other_home = layer(imported)
        assert other_home == home or other_row < row, f"{module} imports {imported}, which is not below it"


def test_the_front_door_loads_nothing_by_itself():
    at_top = {name for name, at_top in imports(MODULES[""]) if at_top and is_within(name, "pansharpen_cli")}
    assert at_top <= {"pansharpen_cli.errors"}


def test_every_place_is_taken():
    for name in (name for row in LAYERS for name in row):
        assert any(is_within(module, name) for module in MODULES), f"{name} is in LAYERS but not in the package"


@pytest.mark.parametrize("package", HOMES)
def test_heavy_packages_stay_at_home(package):
    for module, path in MODULES.items():
        for name, at_top in imports(path):
            if not is_within(name, package):
                continue
            at_home = any(is_within(module, home) for home in HOMES[package])
            lazily = (package, module) in LAZILY and not at_top
            assert lazily or (at_home and (package, module) not in LAZILY), f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in PLACED if any(is_within(module, name) for name in PURE)])
def test_pure_modules_know_neither_rasters_nor_torch(module):
    for name, _ in imports(MODULES[module]):
        assert not any(is_within(name, heavy) for heavy in {*HOMES, "pyproj"} - {"numba"}), f"{module} imports {name}"


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("pansharpen_cli", {"torch", "rasterio", "numpy", "typer"}),
        ("pansharpen_cli.cli.app", {"torch", "rasterio", "safetensors"}),
        ("pansharpen_cli.pipeline", {"torch", "typer", "tqdm"}),
        ("pansharpen_cli.zoo", {"torch", "rasterio"}),
        ("pansharpen_cli.networks", {"rasterio", "typer"}),
    ],
)
def test_what_an_import_does_not_load(imported, absent):
    """The sources say so above; this is what happens."""
    script = f"import sys, {imported}; print(*sorted({absent!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert found.split() == []
