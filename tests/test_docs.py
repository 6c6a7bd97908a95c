"""What README and docs/ say is so: commands, options, codes and links exist, cheap examples run, the site builds."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import rasterio
import torch
from rasterio.plot import show
from rasterio.windows import Window
from test_cli import PROGRAM, as_before, pansharpen  # noqa: F401
from typer.main import get_command
from worlds import World

from pansharpen_cli import __version__, zoo
from pansharpen_cli.classical import METHODS
from pansharpen_cli.cli.app import EXIT_CODES, app
from pansharpen_cli.method import choose
from pansharpen_cli.networks import NETWORKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import drawings  # noqa: E402
import hooks  # noqa: E402

TREE = get_command(app)
GENERATED = hooks.generated()
WRITTEN = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
WRITTEN |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
PAGES = WRITTEN | {f"docs/{place}": text for place, text in GENERATED.items()}


def code_lines(text):
    """The lines of all fenced and indented blocks, those that end in a backslash joined with the next."""
    fence, lines = None, []
    for line in text.splitlines():
        mark = re.match(r"\s*(`{3,})(\w*)", line)
        if mark:
            fence = None if fence else mark[2] or "text"
        elif fence in ("bash", "sh") or (not fence and line.startswith("    ")):
            lines.append(line.strip())
    return re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()


PROGRAMS = r"(?:torchrun .* -m pansharpen_cli|docker run (?!.*--entrypoint).*? pansharpen|pansharpen) (.*)"


def command_lines(text):
    """What follows `pansharpen` in every example, a list of words each; a shell's variable is 1."""
    for line in code_lines(text):
        program = re.match(PROGRAMS, line)
        if program and "..." not in line:
            words = shlex.split(re.sub(r"\$\w+", "1", program[1]), comments=True)
            yield words[: words.index(">")] if ">" in words else words


EXAMPLES = [(page, words) for page, text in PAGES.items() for words in command_lines(text) if "[OPTIONS]" not in words]


def parsed(words):
    """The values of a command line; nothing is run. Raises what the program would show."""
    context = TREE.make_context("pansharpen", [words[0]], resilient_parsing=True)
    return TREE.commands[words[0]].make_context(words[0], list(words[1:]), parent=context).params


@pytest.mark.parametrize(("page", "words"), EXAMPLES, ids=[f"{page}: {' '.join(words)}" for page, words in EXAMPLES])
def test_every_command_line_parses(page, words):
    if words[0].startswith("-") or "--help" in words:
        known = {name for param in TREE.params for name in param.opts} | {"--help", *TREE.commands}
        assert set(words) - {"bash"} <= known
        return
    assert words[0] in TREE.commands
    values = parsed(words)
    models = values.get("model") or []
    for name in [models] if isinstance(models, str) else models:
        known = {"auto", "all", *METHODS, *(model.name for model in zoo.models())}
        assert name in known or "/" in name or name.endswith(".onnx"), name
    example = {"example"} if page == "docs/new-network.md" else set()  # which its reader has just written
    assert values.get("network") in {None, *NETWORKS, *example}


def test_what_is_wrong_in_an_example_would_be_found():
    with pytest.raises(Exception, match="No such option"):
        parsed(["run", "pan.tif", "ms.tif", "-o", "out.tif", "--colour"])
    with pytest.raises(Exception, match="Missing"):
        parsed(["run", "pan.tif", "ms.tif"])
    text = "text\n\n    pansharpen run a \\\n      b --co X=1  # why\n\n```bash\npansharpen models\n```\n"
    assert list(command_lines(text)) == [["run", "a", "b", "--co", "X=1"], ["models"]]


def test_every_command_has_an_example_in_its_help_and_in_the_documents():
    for name, command in TREE.commands.items():
        assert f"pansharpen {name} " in command.help, name
    assert set(TREE.commands) == {words[0] for _, words in EXAMPLES} & set(TREE.commands)


@pytest.mark.parametrize("page", sorted(set(WRITTEN) - {"docs/containers.md"}))  # whose options are those of docker
def test_every_option_that_is_mentioned_exists(page):
    params = [param for command in TREE.commands.values() for param in command.params] + list(TREE.params)
    known = {name for param in params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", WRITTEN[page], flags=re.DOTALL))
    for span in spans:
        if span.split()[0] in {"pansharpen", *TREE.commands} or span.startswith("-"):
            for option in re.findall(r"(?<!\S)(--[a-z][a-z-]*|-[a-z]{1,2})(?![\w-])", span):
                assert option in known | {"-vv"}, f"{option} in `{span}`"


def test_every_exit_code_that_is_mentioned_exists():
    listed = re.findall(r"^\| (\d+) \|", WRITTEN["docs/commands.md"], re.MULTILINE)
    assert [int(code) for code in listed] == list(EXIT_CODES)
    for page, text in PAGES.items():
        for code in re.findall(r"[Ee]xit codes? (?:is )?(\d+)", text):
            assert int(code) in EXIT_CODES, page
    (readme,) = re.findall(r"Exit codes: ([^.]*)\.", WRITTEN["README.md"])
    assert {int(code) for code in re.findall(r"\d+", readme)} <= set(EXIT_CODES)


def anchors(text):
    """What a page's headings are called in links, on GitHub and in the site."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page):
    for target in re.findall(r"\]\(([^) ]+)\)", PAGES[page]):
        if target.startswith(("http:", "https:")):
            continue
        place, _, anchor = target.partition("#")
        path = os.path.normpath(Path(page).parent / place) if place else page
        assert (ROOT / path).exists() or (path in PAGES and path not in WRITTEN), target
        assert not anchor or anchor in anchors(PAGES[path]), target


@pytest.mark.parametrize("page", WRITTEN)
def test_no_link_is_dead_in_the_repository(page):
    """Where nothing is generated; the site has the files of the root as pages of its own."""
    for target in re.findall(r"\]\(([^):# ]+)[#)]", WRITTEN[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target
    place = page.removeprefix("docs/")
    if place != page:
        links = re.findall(r"\]\(([^) ]+)\)", hooks.in_site(WRITTEN[page], place))
        assert not [link for link in links if link.startswith("../" * (place.count("/") + 1))]


def test_the_model_that_auto_takes_for_worldview_is_named():
    bands = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2")
    taken = choose("auto", SimpleNamespace(band_names=bands, exact_ratio=4.0, ratio=4)).name
    assert f"auto` takes `{taken}`" in WRITTEN["docs/recipes/worldview.md"]


@pytest.mark.parametrize("name", TREE.commands)
def test_the_page_of_a_command_is_complete(name):
    page, command = GENERATED[f"commands/{name}.md"], TREE.commands[name]
    assert command.help.splitlines()[0] in page
    for param in command.params:
        assert param.help, param.name
        assert " ".join(param.help.split()).replace("|", "\\|") in page
        if param.param_type_name == "option":
            assert all(f"`{option}`" in page for option in (*param.opts, *param.secondary_opts))
    examples = [line for line in code_lines(page) if not line.endswith("[OPTIONS]")]
    assert examples == [line for line in command.help.splitlines() if line.startswith("pansharpen ")]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with a part of the shipped scene, under the names that README and tour give it."""
    monkeypatch.delenv("PANSHARPEN_MODELS")
    monkeypatch.chdir(tmp_path)
    scene = tmp_path / "examples/l8_madrid"
    scene.mkdir(parents=True)
    cut_out("pan.tif", scene, Window(440, 400, 160, 128))
    cut_out("ms.tif", scene, Window(210, 190, 102, 86))
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(scene / name, tmp_path)
    shutil.copy(scene / "pan.tif", "B8.TIF")
    with rasterio.open("ms.tif") as ms:
        for band, file in zip((3, 2, 1), ("B2.TIF", "B3.TIF", "B4.TIF"), strict=True):
            with rasterio.open(file, "w", **ms.profile | {"count": 1}) as single:
                single.write(ms.read(band), 1)
    Path("item.json").write_text(json.dumps(ITEM))
    return tmp_path


BANDS = {"pan.tif": ("pan",), "ms.tif": ("red", "green", "blue")}
ITEM = {
    "type": "Feature", "stac_version": "1.0.0", "id": "madrid", "geometry": None, "links": [],
    "properties": {"datetime": "2020-08-06T11:00:00Z"},
    "assets": {
        name: {"href": f"./{name}", "type": "image/tiff", "eo:bands": [{"common_name": band} for band in bands]}
        for name, bands in BANDS.items()
    },
}  # fmt: skip


def cut_out(name, folder, window):
    with rasterio.open(ROOT / "examples/l8_madrid" / name) as source:
        size = {"width": window.width, "height": window.height, "transform": source.window_transform(window)}
        with rasterio.open(folder / name, "w", **source.profile | size) as part:
            part.write(source.read(window=window))
            part.descriptions = source.descriptions


CHEAP = {"run", "qnr", "report", "eval", "models"}


@pytest.mark.parametrize(("page", "least"), [("README.md", 8), ("docs/tour.md", 5)])
def test_the_cheap_examples_run(page, least, desk, pansharpen):  # noqa: F811
    ran = 0
    for words in command_lines(WRITTEN[page]):
        inputs = [word for word in words[1:] if word.lower().endswith((".tif", ".h5", "csv")) and word != output(words)]
        if words[0] not in CHEAP or not all(Path(word).exists() for word in inputs):
            continue
        made = [output(words), *(words[words.index(o) + 1] for o in ("--quicklook", "--figure") if o in words)]
        for path in filter(None, made):
            Path(path).unlink(missing_ok=True)
        code, _, err = pansharpen(*words)
        assert code == 0, f"{words}: {err}"
        assert all(Path(path).stat().st_size for path in made if path)
        ran += 1
    assert ran >= least


def output(words):
    return words[words.index("-o") + 1] if "-o" in words else None


def python(page):
    return re.findall(r"```python\n(.*?)```", WRITTEN[page], re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_python_examples_run(page, desk, capsys):
    (code,) = python(page)
    exec(code, {})
    assert "Shift(" in capsys.readouterr().out
    with rasterio.open("out.tif") as product, rasterio.open("pan.tif") as pan:
        assert (product.crs, product.transform) == (pan.crs, pan.transform)
        assert product.descriptions == ("red", "green", "blue")


def test_the_example_of_a_network_is_one():
    """A tile with its halo gives the pixels of the whole, once the global values are frozen."""
    (code,) = python("docs/new-network.md")
    names = {}
    exec(code, names)
    torch.manual_seed(0)
    network = names["Example"](4, 4, channels=8).eval()
    pan, ms = torch.rand(1, 1, 128, 128), torch.rand(1, 4, 32, 32)
    halo = -(-network.halo // 4) * 4
    with torch.inference_mode():
        statistics = network.observe(pan, ms)
        whole = network(pan, ms, statistics)
        read, coarse = slice(48 - halo, 80 + halo), slice(12 - halo // 4, 20 + halo // 4)
        tile = network(pan[..., read, read], ms[..., coarse, coarse], statistics)
    core = slice(halo, halo + 32)
    assert torch.allclose(tile[..., core, core], whole[..., 48:80, 48:80], atol=1e-6)
    assert network.options == {"channels": 8}


def test_what_is_said_to_run_over_every_network_does():
    named = re.findall(r"`(test_\w+\.py)`", WRITTEN["docs/new-network.md"])
    assert "test_tiled_equals_whole.py" in named
    for file in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert "from pansharpen_cli.networks import NETWORKS" in source, file
        assert re.search(r"parametrize\([^@]*NETWORKS", source), file


def test_every_test_that_is_named_exists():
    rows = [row for row in WRITTEN["docs/reliability.md"].splitlines() if row.startswith("|")]
    named = [
        (file, names) for row in rows for file, names in re.findall(r"`(test_\w+\.py)`(?::((?: `test_\w+`,?)+))?", row)
    ]
    assert len(named) > 20
    for file, names in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(test_\w+)`", names):
            assert f"def {name}(" in source, f"{name} in {file}"


def test_drawings_are_those_of_their_script():
    for name, svg in drawings.DRAWINGS.items():
        assert (DOCS / f"pictures/{name}.svg").read_text(encoding="utf-8") == svg


def test_the_citation_is_of_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {f"{name}.html" for name in TREE.commands} <= {page.name for page in pages if page.parent.name == "commands"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=[\"']?([^\"' >]+)", text)
        loaded += re.findall(r"<link[^>]* href=[\"']?([^\"' >]+)", text)
        assert not [place for place in loaded if place.startswith(("http", "//"))], page
        assert "mermaid" not in text  # which the theme would load from elsewhere
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8"))


QGIS = DOCS / "qgis/pansharpen_algorithm.py"


def test_the_script_for_qgis_compiles_and_uses_options_that_exist():
    source = QGIS.read_text(encoding="utf-8")
    compile(source, str(QGIS), "exec")
    assert "pansharpen_cli" not in source
    known = {option for param in TREE.commands["run"].params for option in param.opts}
    used = set(re.findall(r"\"(--?[a-z][a-z-]*)\"", source))
    assert {"-o", "--model"} <= used <= known


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" --bidx 3,2,1,4  --sensor WV3", ["--bidx", "3,2,1,4", "--sensor", "WV3"]),
        ('--quicklook "a b.png" -v', ["--quicklook", "a b.png", "-v"]),
        (r"""--quicklook="C:\my maps\it's.png" """, [r"--quicklook=C:\my maps\it's.png"]),
        ('--quicklook "a b', ["--quicklook", "a b"]),
    ],
)
def test_further_options_in_qgis_may_hold_blanks(text, expected):
    tree = ast.parse(QGIS.read_text(encoding="utf-8"))  # it imports QGIS
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "words")
    space = {"re": re}
    exec(compile(ast.Module([function], []), str(QGIS), "exec"), space)
    assert space["words"](text) == expected


@pytest.mark.skipif("PANSHARPEN_SLOW" not in os.environ, reason="half a minute; PANSHARPEN_SLOW=1 runs it")
@pytest.mark.skipif(not shutil.which("qgis_process.bin"), reason="needs QGIS")
def test_qgis_runs_the_script(tmp_path):
    scripts = tmp_path / ".local/share/QGIS/QGIS3/profiles/default/processing/scripts"
    scripts.mkdir(parents=True)
    shutil.copy(QGIS, scripts)
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    program = tmp_path / "pansharpen"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    output = tmp_path / "out.tif"
    command = ["qgis_process.bin", "run", "script:pansharpen", "--", f"PAN={pan}", f"MS={ms}", "MODEL=gsa"]
    environment = os.environ | {"HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [*command, f"PROGRAM={program}", "OPTIONS=--bidx 3,2,1,4", f"OUTPUT={output}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with rasterio.open(output) as product:
        assert product.descriptions == ("red", "green", "blue", "nir")


def test_a_product_opens_in_natural_colours(tmp_path, monkeypatch, pansharpen):  # noqa: F811
    """In the order in which rasterio shows the bands, whatever theirs; QGIS takes the first three."""
    monkeypatch.chdir(tmp_path)
    World(bands=4, dtype="uint16", nodata=0).write(tmp_path)
    assert pansharpen("run", "pan.tif", "ms.tif", "-o", "out.tif", "-m", "exp", "--coregister", "off")[0] == 0
    with rasterio.open("out.tif") as product:
        _, axes = plt.subplots()
        show(product, ax=axes, adjust=True)  # each from its smallest value to its largest
        shown = axes.images[0].get_array()
        plt.close()
        image = product.read([3, 2, 1]).transpose(1, 2, 0)
        assert np.allclose(shown, (image - image.min(axis=(0, 1))) / np.ptp(image, axis=(0, 1)))
        assert product.descriptions == ("blue", "green", "red", "nir")
        assert product.nodata == 0
        assert "STATISTICS_MEAN" in product.tags(1)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (["rnu"], "'run'"),
        (["run", "pan.tif", "ms.tif", "-o", "out.tif", "--modle", "gsa"], "--model"),
        (["run", "pan.tif", "ms.tif", "-o", "out.tif", "-m", "mtf-glp-sf"], "did you mean mtf-glp-fs?"),
        (["run", "pan.tif", "ms.tif", "-o", "out.tif", "-m", "GSA"], "did you mean gsa?"),
        (["eval", "pan.tif", "ms.tif", "-m", "adknet-perband.x2"], "did you mean adknet-per-band.x2?"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_the_nearest_name_is_told(wrong, right, desk, pansharpen):  # noqa: F811
    code, out, err = pansharpen(*wrong)
    assert (code, out) == (4 if "-m" in wrong else 2, "")
    assert right in err


def test_a_name_like_no_other_brings_no_guess(desk, pansharpen):  # noqa: F811
    _, _, err = pansharpen("run", "pan.tif", "ms.tif", "-o", "out.tif", "-m", "xyz")
    assert "did you mean" not in err


NEEDY = [name for name, command in TREE.commands.items() if name not in ("models", "doctor")]


@pytest.mark.parametrize("name", NEEDY)
def test_a_command_without_its_arguments_shows_its_help(name, pansharpen):  # noqa: F811
    code, out, _ = pansharpen(name)
    assert code == 2
    assert re.search(rf"Usage: .*\b{name} ", out)
    assert f"pansharpen {name} " in out.partition("Usage:")[2].partition("\n")[2]  # an example


def test_help_lists_the_exit_codes(pansharpen):  # noqa: F811
    _, out, _ = pansharpen("--help")
    listed = " ".join(out.partition("Exit codes:")[2].split())
    assert listed == ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


@pytest.mark.parametrize(
    ("words", "completed"), [("pansharpen qn", {"qnr"}), ("pansharpen eval --pro", {"--protocol"}),
                             ("pansharpen run --format ", {"gtiff", "cog"})]
)  # fmt: skip
def test_the_shell_completes(words, completed):
    """As bash asks for it, by the script that --show-completion prints."""
    environment = os.environ | {"_PANSHARPEN_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(words.count(" "))
    program = Path(sys.executable).with_name("pansharpen")
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed
