"""Many scenes, as who runs them overnight meets them: what a failing scene, a dying process or a killed batch costs is
what it must, and nothing more."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from servers import store
from worlds import World

from pansharpen_cli import zoo
from pansharpen_cli.batch import run as batch_run
from pansharpen_cli.batch.check import check
from pansharpen_cli.batch.gather import gather
from pansharpen_cli.batch.manifest import read_manifest
from pansharpen_cli.batch.plan import plan
from pansharpen_cli.batch.run import Batch, sharpen_all
from pansharpen_cli.batch.scene import Outcome
from pansharpen_cli.batch.shards import Shard, parse
from pansharpen_cli.batch.summary import Summary, read_summary
from pansharpen_cli.batch.workers import Death, Workers
from pansharpen_cli.errors import ModelError, OutputError, SceneError, UsageError
from pansharpen_cli.job import Job
from pansharpen_cli.outputs.journal import journal_of
from pansharpen_cli.system import locations

PROGRAM = [sys.executable, "-m", "pansharpen_cli"]
SLOW = "PANSHARPEN_SLOW" in os.environ
DOCUMENT = Path(__file__).parents[1] / "docs" / "batch.md"


@pytest.fixture(autouse=True)
def own_models(monkeypatch, tmp_path):
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make_scenes(folder, count, broken=(), size=128):
    """Scenes s000, s001, ... with pan.tif and ms.tif, all different; the broken ones lack half of their MS file."""
    for number in range(count):
        scene = folder / f"s{number:03}"
        scene.mkdir(parents=True)
        world = World(bands=3, dtype="uint16", pan_size=(size, size), ms_size=(size // 4, size // 4), waves=20 + number)
        _, ms = world.write(scene)
        if number in broken:
            ms.write_bytes(ms.read_bytes()[: ms.stat().st_size // 2])
    return folder


def summary(folder, name="summary.jsonl"):
    """Scene -> its line."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    assert len({line["scene"] for line in lines}) == len(lines)
    return {line["scene"]: line for line in lines}


def statuses(folder):
    return {name: line["status"] for name, line in summary(folder).items()}


def pixels(path):
    with rasterio.open(path) as file:
        return file.read()


def batch(folder, output, **options):
    own = {name: options.pop(name) for name in ("overwrite", "creation_options") if name in options}
    common = Job(pan="", ms=(), output=output, model="exp", **own)
    return Batch(gather(folder, output, common)[0], output, **options)


def run(*arguments, **options):
    return subprocess.run(
        [*PROGRAM, "batch", *map(str, arguments)], check=False, capture_output=True, text=True, **options
    )


# what is to be done


COLUMNS = {
    "model": ("gsa", "gsa"),
    "coregister": ("1.5,-2", (1.5, -2.0)),
    "bands": ("3;1-2", [3, 1, 2]),
    "band_names": ("red;nir", ["red", "nir"]),
    "nodata": ("-1", -1.0),
    "sensor": ("WV3", "WV3"),
    "resampling": ("cubic", "cubic"),
    "dtype": ("float32", "float32"),
    "format": ("cog", "cog"),
    "creation_options": ("COMPRESS=ZSTD;LEVEL=3", {"COMPRESS": "ZSTD", "LEVEL": "3"}),
    "tile": ("256", 256),
}


def test_a_manifest_says_it_all(tmp_path):
    """As CSV and as JSON Lines, the latter with texts or with values."""
    paths = "x/pan.tif", "x/b1.tif;https://example.com/b2.tif", "far/out"
    row = dict(zip(("pan", "ms", "out"), paths, strict=True)) | {name: text for name, (text, _) in COLUMNS.items()}
    csv = [",".join(row), ",".join(f'"{text}"' for text in row.values()), "p.tif,m.tif" + "," * (len(row) - 2)]
    values = row | {name: value for name, (_, value) in COLUMNS.items()} | {"ms": paths[1].split(";")}
    (tmp_path / "m.csv").write_text("\n".join(csv))
    for name, first in (("texts.jsonl", row), ("values.jsonl", values)):
        (tmp_path / name).write_text(f"{json.dumps(first)}\n\n" + '{"pan": "p.tif", "ms": "m.tif"}')
    common = Job(pan="", ms=(), output=tmp_path, model="brovey", threads=3)
    for name in ("m.csv", "texts.jsonl", "values.jsonl"):
        first, second = read_manifest(tmp_path / name, tmp_path / "o", common)
        assert (first.pan, first.output) == (str(tmp_path / "x/pan.tif"), tmp_path / "o/far/out.tif")
        assert first.ms == [str(tmp_path / "x/b1.tif"), "https://example.com/b2.tif"]
        assert {name: getattr(first, name) for name in COLUMNS} == {name: value for name, (_, value) in COLUMNS.items()}
        assert (second.output, second.model, second.dtype) == (tmp_path / "o/p.tif", "brovey", None)
        assert first.threads == second.threads == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pan,ms,colour\na,b,c", "unknown column 'colour'"),
        ("pan,ms,threads\na,b,2", "unknown column 'threads'"),
        ("pan,out\na,b", "no column 'ms'"),
        ("pan,ms\na", "scene 1 lacks"),
        ("pan,ms\na,b\nc,", "scene 2 lacks"),
        ("pan,ms\na,b,c", "scene 1, has more fields"),
        ("pan,ms", "names no scenes"),
        ("pan,ms,out\na,b,../c", "scene 1: out is a name in the folder"),
        ("pan,ms,out\na,b,/c", "scene 1: out is a name in the folder"),
        ("pan,ms,sensor\na,b,WV9", "scene 1: sensor takes .*WV3.* not 'WV9'"),
        ("pan,ms,bands\na,b,one", "scene 1: bands takes band numbers"),
        ("pan,ms,tile\na,b,12", "scene 1: tile takes a whole number from 32 on, not 12"),
        ("pan,ms,tile\na,b,x", "scene 1: tile takes a whole number, not 'x'"),
        ("pan,ms,dtype\na,b,uint9", "scene 1: dtype knows uint8"),
        ("pan,ms,nodata\na,b,-", "scene 1: nodata takes a number"),
        ("pan,ms,coregister\na,b,left", "scene 1: .*coregister takes"),
        ("pan,ms,band_names\na,b,red;;blue", "scene 1: band_names takes names .*, none of them empty"),
        ("pan,ms,format\na,b,png", "scene 1: format knows gtiff, cog, not 'png'"),
        ("pan,ms,model\na,b,gsa\nc,d,gsaa", "scene 2: no model is called 'gsaa'.*did you mean gsa"),
        ("pan,ms,model\na,b,./gone", "scene 1: gone is not a model folder"),
        ("pan,ms,ms\na,b,c", r"m\.csv, line 1, has 'ms' 2 times"),
        ("pan,ms,out\na,b,c\na,b,.", r"m\.csv, scene 2: out is a name in the folder .* not '\.'"),
        ("pan,ms,out\na,b,./", "scene 1: out is a name in the folder"),
        ("pan,ms\nhttps://host/../pan.tif,b", "scene 1: it has no name of its own; give it an out"),
    ],
)
def test_a_manifest_is_refused_by_line_and_column(text, said, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(SceneError, match=said):
        read_manifest(tmp_path / "m.csv", tmp_path, Job(pan="", ms=(), output=tmp_path))


@pytest.mark.parametrize("bad", ['{"pan": "a",}', "[1]", "[" * 100_000, "1" * 5000])
def test_a_bad_line_of_json_is_named(bad, tmp_path):
    """As an editor counts it, empty ones included, and those that a string may hold are none."""
    good = '{"pan": "a\u2028", "ms": "b"}'
    (tmp_path / "m.jsonl").write_text(f"{good}\n\n{bad}\n{good}")
    with pytest.raises(SceneError, match=r"m\.jsonl, line 3, is no JSON object") as refused:
        read_manifest(tmp_path / "m.jsonl", tmp_path, Job(pan="", ms=(), output=tmp_path))
    assert "line 1" not in str(refused.value)


@pytest.mark.parametrize("doubled", ['"ms": "b", "ms": "c"', '"ms": "b", "creation_options": {"ms": 1, "ms": 2}'])
def test_a_key_of_json_stands_once(doubled, tmp_path):
    (tmp_path / "m.jsonl").write_text(f'{{"pan": "a", "ms": "b"}}\n\n{{"pan": "a", {doubled}}}')
    with pytest.raises(SceneError, match=r"m\.jsonl, line 3, has 'ms' 2 times"):
        read_manifest(tmp_path / "m.jsonl", tmp_path, Job(pan="", ms=(), output=tmp_path))


@pytest.mark.parametrize(("pan", "name"), [("../pan.tif", "up"), ("a/../b/pan.tif", "b"), ("pan.tif", "in")])
def test_a_scene_is_called_as_the_folder_of_its_pan(pan, name, tmp_path, monkeypatch):
    folder = tmp_path / "up" / "in"
    folder.mkdir(parents=True)
    (folder / "m.csv").write_text(f"pan,ms\n{pan},ms.tif")
    monkeypatch.chdir(folder)
    for manifest in (folder / "m.csv", Path("m.csv")):
        [job] = read_manifest(manifest, tmp_path, Job(pan="", ms=(), output=tmp_path))
        assert job.output == tmp_path / f"{name}.tif"


def test_models_are_looked_for_before_anything_begins(tmp_path, monkeypatch):
    """Each name once, those of the manifest and that of the command line."""
    looked, find = [], zoo.find
    monkeypatch.setattr(zoo, "find", lambda name, **others: looked.append(name) or find(name, **others))
    rows = [f"p{number},m,{name}" for number, name in enumerate(["auto", "gsa", "", "adknet.bgrn-x4"] * 500)]
    (tmp_path / "m.csv").write_text("\n".join(["pan,ms,model", *rows]))
    common = Job(pan="", ms=(), output=tmp_path, model="exp")
    assert len(gather(tmp_path / "m.csv", tmp_path, common)[0]) == 2000
    assert looked == ["adknet.bgrn-x4"]
    with pytest.raises(ModelError, match=r"no model is called 'expp'.*did you mean exp"):
        gather(tmp_path / "m.csv", tmp_path, replace(common, model="expp"))


@pytest.mark.parametrize(
    "ms", ["/etc/ms.tif", "../ms.tif", "link/ms.tif", "https://u:secret@example.com/ms.tif?a=secret"]
)
def test_a_manifest_may_be_kept_below_a_folder(ms, tmp_path):
    """Not above it, nor where a link leads, nor on the network."""
    (tmp_path / "root" / "scenes").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    manifest = tmp_path / "root" / "m.csv"
    common = Job(pan="", ms=(), output=tmp_path)
    manifest.write_text("pan,ms\nscenes/pan.tif,scenes/../scenes/ms.tif")
    assert len(read_manifest(manifest, tmp_path, common, root=tmp_path / "root")) == 1
    manifest.write_text(f"pan,ms\nscenes/a.tif,scenes/b.tif\nscenes/pan.tif,{ms}")
    with pytest.raises(SceneError, match=r"scene 2 names .*ms\.tif.*, which is not below --root") as refused:
        read_manifest(manifest, tmp_path, common, root=tmp_path / "root")
    assert "secret" not in str(refused.value)
    assert len(read_manifest(manifest, tmp_path, common)) == 2


def test_a_folder_may_be_kept_below_another(tmp_path):
    make_scenes(tmp_path / "in", 1)
    (tmp_path / "in" / "link").symlink_to(make_scenes(tmp_path / "else", 1))
    common = Job(pan="", ms=(), output=tmp_path, model="exp")
    assert len(gather(tmp_path / "in", tmp_path / "out", common, root=tmp_path)[0]) == 2
    with pytest.raises(SceneError, match=r"scene link/s000, names .*pan\.tif, which is not below --root"):
        gather(tmp_path / "in", tmp_path / "out", common, root=tmp_path / "in")


@pytest.mark.parametrize("output", ["in", "in/../in", "link", "."])
def test_products_do_not_lie_among_the_files_that_are_searched(output, tmp_path):
    make_scenes(tmp_path / "in", 1)
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(UsageError, match=r"-o .* is the folder that is searched, or holds it"):
        batch(tmp_path / "in", tmp_path / output)


@pytest.mark.parametrize("output", ["ftp://bucket/products", "https://example.com/products", "/vsis3/bucket/products"])
def test_products_are_written_here(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_scenes(tmp_path / "in", 1)
    with pytest.raises(OutputError, match=f"{output} is not on this machine"):
        sharpen_all(batch(tmp_path / "in", Path(output)))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def in_a_bucket(scenes, bucket):
    """Compressed copies of scenes, and a manifest that names them by URL."""
    lines = ["pan,ms,out"]
    for scene in sorted(scenes.iterdir()):
        (bucket / scene.name).mkdir(parents=True)
        for name in ("pan.tif", "ms.tif"):
            rasterio.shutil.copy(scene / name, bucket / scene.name / name, driver="GTiff", compress="deflate")
        lines.append(",".join(f"s3://bucket/{scene.name}/{name}" for name in ("pan.tif", "ms.tif")) + f",{scene.name}")
    manifest = scenes / "scenes.csv"
    manifest.write_text("\n".join(lines))
    return manifest


def test_from_store_to_store(tmp_path):
    """A batch that needs no disk but for the product it is at; finished, changed, old and foreign objects."""
    manifest = in_a_bucket(make_scenes(tmp_path / "in", 3), tmp_path / "bucket")
    local = batch(tmp_path / "in", tmp_path / "local")
    sharpen_all(local)
    products, here = tmp_path / "bucket" / "products", tmp_path / "here"
    here.mkdir()
    with store(tmp_path) as keys:
        told_here = run(manifest, "-o", "s3://bucket/products", cwd=here, env=os.environ | keys)
        assert (told_here.returncode, "--summary-folder" in told_here.stderr) == (2, True)
        arguments = [manifest, "-o", "s3://bucket/products", "-m", "exp", "--qnr", "--summary-folder", here]

        def again(*more):
            done = run(*arguments, *more, cwd=here, env=os.environ | keys | {"TMPDIR": str(here)})
            assert [path.name for path in here.iterdir()] == ["summary.jsonl"]
            return done.returncode, statuses(here)

        assert again() == (0, dict.fromkeys(("s000", "s001", "s002"), "done"))
        told = summary(here)["s001"]
        assert told["product"] == "s3://bucket/products/s001.tif"
        assert told["hqnr"] > 0.5
        for name in ("s000", "s001", "s002"):
            assert (pixels(products / f"{name}.tif") == pixels(tmp_path / "local" / f"{name}.tif")).all()
        assert again() == (5, dict.fromkeys(("s000", "s001", "s002"), "failed"))
        assert "exists" in summary(here)["s000"]["message"]
        assert {line["attempts"] for line in summary(here).values()} == {1}
        # what they were made of was not remembered: our own are made anew
        assert again("--resume") == (0, dict.fromkeys(("s000", "s001", "s002"), "done"))
        before = {path: path.stat().st_mtime_ns for path in products.iterdir()}
        (here / "summary.jsonl").unlink()
        assert again("--resume") == (0, dict.fromkeys(("s000", "s001", "s002"), "kept"))
        assert "not fetched to be judged" in summary(here)["s000"]["message"]
        with rasterio.open(tmp_path / "bucket" / "s001" / "ms.tif", "r+") as ms:
            pixel = ms.read(window=rasterio.windows.Window(9, 9, 1, 1)) + 1
            ms.write(pixel, window=rasterio.windows.Window(9, 9, 1, 1))
        (products / "s002.tif").write_text("somebody else's")
        assert again("--resume") == (5, {"s000": "kept", "s001": "done", "s002": "failed"})
        assert (products / "s002.tif").read_text() == "somebody else's"
        assert (products / "s000.tif").stat().st_mtime_ns == before[products / "s000.tif"]
        assert again("--overwrite", "--resume") == (0, {"s000": "kept", "s001": "kept", "s002": "done"})
        plans = run(*arguments, "--resume", "--dry-run", "--json", cwd=here, env=os.environ | keys)
        assert [one["status"] for one in json.loads(plans.stdout)["scenes"]] == ["kept"] * 3


def test_a_store_that_says_nothing_is_not_written_to(tmp_path):
    """It is asked before a batch begins."""
    manifest = in_a_bucket(make_scenes(tmp_path / "in", 2), tmp_path / "bucket")
    with store(tmp_path) as keys:
        done = run(manifest, "-o", "s3://closed", "--summary-folder", tmp_path, env=os.environ | keys)
        assert done.returncode == 1
        assert "s3://closed/s000.tif cannot be looked for: its server answers 403, Forbidden" in done.stderr
    assert not (tmp_path / "summary.jsonl").exists()
    with pytest.raises(UsageError, match="names no bucket"):
        locations.output("s3:///x", folder=True)


def test_a_manifest_is_not_replaced_by_the_summary(tmp_path):
    make_scenes(tmp_path, 1)
    manifest = tmp_path / "summary.jsonl"
    manifest.write_text('{"pan": "s000/pan.tif", "ms": "s000/ms.tif"}\n')
    done = run(manifest, "-o", tmp_path, "-m", "exp")
    assert (done.returncode, "would take the place of" in done.stderr) == (2, True)
    assert manifest.read_text().startswith('{"pan"')


def test_a_manifest_is_not_replaced_by_a_product(tmp_path):
    manifest = tmp_path / "m.tif"
    manifest.write_text("pan,ms,out\na,b,m")
    task = replace(batch(manifest, tmp_path, overwrite=True), manifest=manifest)
    with pytest.raises(SceneError, match=r"m\.tif would take the place of the manifest .*m\.tif"):
        sharpen_all(task)
    assert manifest.read_text().startswith("pan")


@pytest.mark.parametrize(
    ("own", "options", "said"),
    [
        (",", {"COMPRESS": "NONSENSE"}, "with COMPRESS=NONSENSE"),
        (",", {"blockxsize": "17"}, "with BLOCKXSIZE=17"),
        ("COMPRESS=NONSENSE,", {}, "with COMPRESS=NONSENSE"),
        ("PREDICTOR=3,uint16", {}, "cannot be written as uint16 gtiff with PREDICTOR=3"),
    ],
)
def test_options_that_make_no_product_are_told_before_the_batch(own, options, said, tmp_path):
    """Those of the command as those of one scene in the manifest, by the plan as by the batch."""
    (tmp_path / "m.csv").write_text(f"pan,ms,creation_options,dtype\na,b,,\nc,d,{own}")
    task = batch(tmp_path / "m.csv", tmp_path / "out", creation_options=options)
    for begin in (sharpen_all, lambda task: list(plan(task))):
        with pytest.raises(UsageError, match=said):
            begin(task)
        assert os.listdir(tmp_path) == ["m.csv"]


@pytest.mark.parametrize(
    "options",
    [{"PREDICTOR": "3"}, {"NBITS": "12"}, {"PHOTOMETRIC": "RGB"}, {"COMPRESS": "LERC_ZSTD"}, {"INTERLEAVE": "BAND"}],
)
def test_options_that_only_some_products_can_have_are_left_to_these(options, tmp_path):
    """Floats, integers of 16 bits, three bands: the scenes will tell."""
    (tmp_path / "m.csv").write_text("pan,ms\na,b")
    check(batch(tmp_path / "m.csv", tmp_path / "out", creation_options=options))


MOSAIC = """<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">out/x.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("pan", ["out/x.tif", "link/x.tif", "mosaic.vrt"])
def test_no_product_takes_the_place_of_an_input(pan, tmp_path):
    """Of whatever scene, in whatever part of the batch, and by whatever name."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.tif").write_text("mine")
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "mosaic.vrt").write_text(MOSAIC)
    (tmp_path / "m.csv").write_text(f"pan,ms,out\na,b,x\n{pan},b,y")
    with pytest.raises(SceneError, match=r"out/x\.tif would take the place of an input of y; give it another out"):
        sharpen_all(batch(tmp_path / "m.csv", tmp_path / "out", overwrite=True, shard=Shard(1, 2)))
    assert os.listdir(tmp_path / "out") == ["x.tif"]


@pytest.mark.parametrize(
    ("rows", "output", "said"),
    [
        ("a/pan.tif,b,\nc/a.tif,d,", "out", "2 scenes are to become .*out/a.tif"),
        ("a,b,p.tif\nc,d,p.tiff", "out", "2 scenes are to become .*out/p.tif"),
        ("a,b,p\nc,d,p.tif/q", "out", r"out/p\.tif/q\.tif would lie in .*out/p\.tif, which is to be a file"),
        ("a,b,summary.jsonl/q", "out", r"would lie in .*out/summary\.jsonl, which is to be a file"),
        ("a,b,made", "there", r"there/made\.tif exist; --resume the batch"),
        ("a,b,p", "there/made.tif/out", r"out cannot be a folder, as .*made\.tif is a file; give another name"),
        ("a,b,p", "\udce9", "has a name that is not UTF-8; give another one"),
    ],
)
def test_what_cannot_begin_is_told_before_it(rows, output, said, tmp_path):
    """By the plan as by the batch; neither leaves anything."""
    (tmp_path / "m.csv").write_text(f"pan,ms,out\n{rows}")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "made.tif").write_text("mine")
    before, task = sorted(tmp_path.rglob("*")), batch(tmp_path / "m.csv", tmp_path / output)
    for begin in (sharpen_all, lambda task: list(plan(task))):
        with pytest.raises((SceneError, OutputError), match=said):
            begin(task)
        assert sorted(tmp_path.rglob("*")) == before


def test_products_of_two_names_for_one_folder_are_told_before_the_batch(tmp_path):
    """One would be replaced by the other, and both be told as done."""
    (tmp_path / "m.csv").write_text("pan,ms,out\na,b,there/x\nc,d,link/x")
    (tmp_path / "out" / "there").mkdir(parents=True)
    (tmp_path / "out" / "link").symlink_to("there")
    with pytest.raises(SceneError, match=r"2 scenes are to become .*out/there/x\.tif; give each its own out"):
        check(batch(tmp_path / "m.csv", tmp_path / "out", resume=True))


@pytest.mark.parametrize("mode", [0o777, 0o555])
def test_a_folder_that_may_not_be_written_to_is_told_before_the_batch(mode, tmp_path, monkeypatch):
    """To one who is not root, who may write anywhere."""
    (tmp_path / "m.csv").write_text("pan,ms\na,b")
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(mode)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(OutputError, match="there/out cannot hold files, as you may not write to there; choose")
    user = os.getuid()
    try:
        os.setreuid(user or 65534, -1)
        with refused if mode == 0o555 else nullcontext():
            check(batch(Path("m.csv"), Path("there/out")))
    finally:
        os.setreuid(user, -1)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_name_that_is_not_utf8_costs_no_other_scene(tmp_path):
    make_scenes(tmp_path / "in", 1)
    (tmp_path / "in" / "\udce9_PAN.tif").write_bytes((tmp_path / "in/s000/pan.tif").read_bytes())
    done = run(tmp_path / "in", "-o", tmp_path / "out", "-m", "exp", "--json")
    assert (done.returncode, json.loads(done.stdout)["done"]) == (0, 1)
    assert "\\udce9_PAN.tif is left out: its name is not UTF-8; rename it" in done.stderr


MEASURE = """
import re, sys
import pansharpen_cli.batch.plan, pansharpen_cli.system.compiled
from pathlib import Path
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, (pan, ms, output, model, threads) = peak(), sys.argv[1:]
sharpen(Job(pan, [ms], Path(output), model, "off", threads=int(threads)))
print(peak() - before)
"""


@pytest.mark.skipif(not SLOW, reason="takes a minute; PANSHARPEN_SLOW=1")
@pytest.mark.parametrize(("model", "bands", "threads"), [("exp", 4, 1), ("gsa", 4, 4), ("brovey", 8, 2)])
def test_the_plan_knows_the_memory(model, bands, threads, tmp_path):
    """What a process needs more than with all its modules loaded, on noise: as the plan says, to a half."""
    random, size = np.random.default_rng(0), 4096
    world = World(bands=bands, dtype="uint16", pan_size=(size, size), ms_size=(size // 4, size // 4), names=())
    pan, ms = (random.integers(1, 999, (b, s, s), np.uint16) for b, s in ((1, size), (bands, size // 4)))
    pan, ms = world.write(tmp_path, pan, ms)
    job = Job(pan, [ms], tmp_path / "out.tif", model)
    [found] = plan(Batch([job], tmp_path, threads=threads))
    command = [sys.executable, "-c", MEASURE, pan, ms, job.output, model, threads]
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=True)
    print(f"{model}, {threads} threads: {found.memory / 1e6:.0f} MB planned, {int(done.stdout) / 1e6:.0f} MB seen")
    assert 0.5 * found.memory < int(done.stdout) < 1.5 * found.memory


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_share_all_scenes_out(count):
    scenes = list(range(17))
    parts = [Shard(number, count).of(scenes) for number in range(1, count + 1)]
    assert sorted(chain.from_iterable(parts)) == scenes
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len({Shard(number, count).suffix for number in range(1, count + 1)}) == count


def slurm(member, first, last, count):
    told = {"ID": member, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in told.items()}


AWS = {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "5"}


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("2/5", {}, (2, 5)),
        ("5/5", {}, (5, 5)),
        ("1/1", {}, (1, 1)),
        ("auto", AWS, (1, 5)),
        ("auto/5", AWS, (1, 5)),
        ("auto", slurm(13, 10, 16, 3), (2, 3)),
        ("auto", slurm(7, 7, 7, 1), (1, 1)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, (8, 8)),
        ("0/5", {}, "count from 1"),
        ("6/5", {}, "count from 1"),
        ("1-5", {}, "takes I/N"),
        ("auto", {}, "finds no job array"),
        ("auto", {"JOB_COMPLETION_INDEX": "7"}, "auto/N"),
        ("auto/7", {"JOB_COMPLETION_INDEX": "7"}, "number 7, from 0, in an array of 7"),
        ("auto/4", AWS, "in an array of 5"),
        ("auto/16", slurm(7, 7, 7, 1), "number 0, from 0, in an array of 1; say it as I/N"),  # sent once more, alone
        ("auto", slurm(13, 10, 16, 4), "even steps"),
        ("auto", slurm(10, 10, 17, 3), "even steps"),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, "AWS_BATCH_JOB_ARRAY_SIZE=''"),
    ],
)  # fmt: skip
def test_a_member_of_a_job_array_finds_its_part(text, environment, shard):
    if isinstance(shard, str):
        with pytest.raises(UsageError, match=shard):
            parse(text, environment)
    else:
        assert parse(text, environment) == Shard(*shard)
        assert parse(text, environment).of(range(20)) == range(20)[shard[0] - 1 :: shard[1]]


def snippets(language):
    """The code of the document, in a language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_job_arrays_of_the_document_work(tmp_path, monkeypatch):
    """The Slurm script is run by bash; of the others what their containers are told."""
    make_scenes(tmp_path, 3)
    rows = [f"s{number:03}/pan.tif,s{number:03}/ms.tif,exp" for number in range(3)]
    (tmp_path / "scenes.csv").write_text("\n".join(["pan,ms,model", *rows]))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    script, submission = snippets("bash")
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)\n", script).groups())
    assert f"--shard auto/{last - first + 1} " in script
    environment = {**os.environ, **slurm(1, first, last, last - first + 1), "SLURM_CPUS_PER_TASK": "2"}
    subprocess.run(["bash", "-e"], input=script, text=True, cwd=tmp_path, env=environment, check=True)
    assert list(summary(tmp_path / "products", "summary-2-of-16.jsonl")) == ["s001"]

    words = shlex.split(submission)
    retries, overrides = (json.loads(words[words.index(o) + 1]) for o in ("--retry-strategy", "--container-overrides"))
    assert retries["evaluateOnExit"][0] == {"onExitCode": "5", "action": "EXIT"}
    command = [word.replace("/data", str(tmp_path)) for word in overrides["command"]]
    aws = {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}
    done = run(*command[1:], "--json", env={**os.environ, **aws})
    assert (done.returncode, command[0]) == (0, "batch")
    assert json.loads(done.stdout)["kept"] == 1  # what Slurm's member made

    manifest = snippets("yaml")[0]
    arguments = json.loads(re.search(r"args: (\[.*\])", manifest)[1])
    assert arguments[:1] + arguments[2:4] == [*command[:1], "-o", "/data/products"]
    shard = parse(arguments[arguments.index("--shard") + 1], {"JOB_COMPLETION_INDEX": "0"})
    assert shard == Shard(1, int(re.search(r"completions: (.*)", manifest)[1]))
    assert arguments[arguments.index("-j") + 1] == re.search(r'cpu: "(\d+)"', manifest)[1]
    example = (DOCUMENT.parents[1] / "examples" / "kubernetes" / "job.yaml").read_text()
    assert re.search(r"values: .*\]", manifest)[0] in example


# processes


def square(number):
    """Work for a process: a negative number kills it."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL if number == -1 else signal.SIGTERM)
        time.sleep(9)
    return number**2, os.getpid()


def test_a_process_that_dies_takes_only_its_task_with_it():
    tidied, queue = [], deque([1, -1, 2, 3, -2, 4, 5])
    with Workers([square, square], on_log=print, tidy=lambda task, pid: tidied.append((task, pid))) as workers:
        results = dict(workers.each(queue))
    deaths = {task: result.code for task, result in results.items() if isinstance(result, Death)}
    assert deaths == {-1: -signal.SIGKILL, -2: 128 + signal.SIGTERM}
    assert {task: result[0] for task, result in results.items() if task > 0} == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}
    assert sorted(task for task, _ in tidied) == [-2, -1]  # which of two processes dies first, nobody says
    assert len({result[1] for task, result in results.items() if task > 0} | {pid for _, pid in tidied}) <= 4


def children(pid):
    """Processes that `pid` started and that do its work."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.01)
    return value


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


needs_proc = pytest.mark.skipif("not os.path.exists('/proc/self/task')", reason="finds its processes in /proc")


@needs_proc
def test_a_scene_whose_process_was_killed_is_made_again(tmp_path):
    make_scenes(tmp_path / "in", 6)
    command = [*PROGRAM, "batch", tmp_path / "in", "-o", tmp_path / "out", "-m", "exp", "--workers", "1", "-j", "1"]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: lines(tmp_path / "out" / "summary.jsonl"))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = summary(tmp_path / "out")
    again = [line["status"] for line in found.values() if line["attempts"] == 2]
    assert again in (["done"], ["kept"])  # it may have died between its product and the word of it
    assert [line["status"] for line in found.values() if line["attempts"] == 1] == ["done"] * 5
    assert sorted(line["attempts"] for line in found.values()) == [1, 1, 1, 1, 1, 2]
    assert "was killed" in errors
    assert not list((tmp_path / "out").glob(".*"))


@needs_proc
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_that_is_stopped_leaves_whole_products_and_no_process(sign, tmp_path):
    make_scenes(tmp_path / "in", 8)
    command = [*PROGRAM, "batch", tmp_path / "in", "-o", tmp_path / "out", "-m", "exp", "--workers", "2", "-j", "2"]
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: lines(tmp_path / "out" / "summary.jsonl"))
    workers = children(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, sign) if sign == signal.SIGINT else process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sign]
    assert "Traceback" not in errors
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    found = statuses(tmp_path / "out")
    assert set(found.values()) == {"done", "left"}
    for path in (tmp_path / "out").glob("*.tif"):
        assert pixels(path).all()
    assert {f"{name}.tif" for name, status in found.items() if status == "done"} <= set(os.listdir(tmp_path / "out"))
    assert not list((tmp_path / "out").glob(".*"))


def overnight(folder, count, broken, kills, seed):
    """A batch is killed with all its processes, again and again, and goes on; beside it one that nobody disturbs.

    Products of the first that were there at a kill are the same files in the end: nothing finished was done again.
    """
    make_scenes(folder / "in", count, broken)
    options = "-m", "exp", "--workers", "2", "-j", "2", "-q"
    assert run(folder / "in", "-o", folder / "whole", *options).returncode == 5
    out, random, finished = folder / "out", np.random.default_rng(seed), {}
    command = [*PROGRAM, "batch", folder / "in", "-o", out, *options, "--resume"]
    for kill in range(kills):
        process = subprocess.Popen([str(part) for part in command], start_new_session=True)
        target = len(finished) + 1 + random.integers(max(1, (count - len(finished)) // (kills + 1 - kill)))
        wait_for(lambda: len(list(out.glob("*.tif"))) >= target or process.poll() is not None, 300)  # noqa: B023
        time.sleep(random.uniform(0, 0.1))
        assert process.poll() is None, "it was too quick"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("*.tif")}
        assert finished.items() <= now.items()
        assert len(finished) < len(now) < count - len(broken)
        finished = now
    last = run(*command[len(PROGRAM) + 1 :])
    assert last.returncode == 5
    made = {path.name: path for path in (folder / "whole").glob("*.tif")}
    assert len(made) == count - len(broken)
    assert {path.name for path in out.iterdir()} == {*made, "summary.jsonl"}
    assert (
        finished.items() <= {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.iterdir()}.items()
    )
    for name, path in made.items():
        assert np.array_equal(pixels(out / name), pixels(path))
    found = summary(out)
    assert list(found) == [f"s{number:03}" for number in range(count)]
    kept = {f"{name}.tif" for name, line in found.items() if line["status"] == "kept"}
    assert kept == set(finished)
    failed = {name: line["message"] for name, line in found.items() if line["status"] == "failed"}
    assert set(failed) == {f"s{number:03}" for number in broken}
    assert all(f"{name}/ms.tif is not a readable" in message for name, message in failed.items())
    return f"{len(made)} products, {len(failed)} failures, {len(kept)} kept at the last of {kills} kills"


def test_a_batch_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    overnight(tmp_path, 16, {3, 12}, kills=2, seed=0)


@pytest.mark.skipif(not SLOW, reason="some minutes; PANSHARPEN_SLOW=1 runs it")
def test_200_scenes_4_of_them_broken_killed_five_times(tmp_path):
    print(overnight(tmp_path, 200, {3, 77, 120, 199}, kills=5, seed=1))


# two at once


def test_two_batches_of_the_same_scenes_share_them(tmp_path):
    """Each makes what the other has not, finds the rest finished, and leaves nothing but products and one summary."""
    make_scenes(tmp_path / "in", 6, size=256)
    options = "-m", "gsa", "--tile-size", "64", "-j", "1", "--resume"
    command = [*PROGRAM, "batch", tmp_path / "in", "-o", tmp_path / "out", *options]
    command = [str(part) for part in command]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for number in range(6):
        word = [f"s{number:03} by gsa in" in text for text in said], [f"s{number:03} is finished" in t for t in said]
        assert sorted(word) in ([[False, True], [True, False]],), said
    assert not any(word in text for text in said for word in ("Traceback", "error", "cannot be written"))
    assert sorted(os.listdir(tmp_path / "out")) == [*(f"s{number:03}.tif" for number in range(6)), "summary.jsonl"]
    found = summary(tmp_path / "out")
    assert len(found) == 6
    assert {line["status"] for line in found.values()} <= {"done", "kept"}
    assert all(line["seconds"] for line in found.values())  # told by whoever made it


HOLDS = """
import sys
from pathlib import Path
from pansharpen_cli.outputs.journal import Claim
from pansharpen_cli.outputs.target import partial_beside
product = Path(sys.argv[1])
with Claim(product):
    partial_beside(product).write_text("live")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_another_run_is_making_is_left_to_it_as_long_as_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_run, "PATIENCE", 0.5)
    make_scenes(tmp_path / "in", 3)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", HOLDS, str(out / "s001.tif")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        theirs = set(out.iterdir())
        sharpen_all(batch(tmp_path / "in", out, resume=True, retries=0))
        assert len(theirs) == 2
        assert theirs <= set(out.iterdir())
        found = summary(out)
        assert {name: line["status"] for name, line in found.items()} == {
            "s000": "done", "s001": "failed", "s002": "done",
        }  # fmt: skip
        assert found["s001"]["message"] == f"{out}/s001.tif is being made by another run; wait for it"
        other.kill()
    sharpen_all(batch(tmp_path / "in", out, resume=True))
    assert statuses(out) == {"s000": "kept", "s001": "done", "s002": "kept"}
    assert not list(out.glob(".*"))


def test_a_scene_that_is_finished_while_it_is_waited_for_is_kept(tmp_path):
    make_scenes(tmp_path / "in", 2)
    out = tmp_path / "out"
    sharpen_all(batch(tmp_path / "in", tmp_path / "before"))
    out.mkdir()
    command = [sys.executable, "-c", HOLDS, str(out / "s001.tif")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"

        def finish(done, failed, total):
            if done > 1:
                return
            os.replace(tmp_path / "before" / "s001.tif", out / "s001.tif")
            [partial] = out.glob(".*.partial")
            partial.unlink()
            other.stdin.close()

        sharpen_all(batch(tmp_path / "in", out, resume=True, retries=0), finish)
    assert statuses(out) == {"s000": "done", "s001": "kept"}
    assert not journal_of(out / "s001.tif").exists()


def test_two_batches_write_one_summary(tmp_path):
    """The later one knows who made what, and how fast; neither loses a line when the other has replaced the file."""
    path, names = tmp_path / "summary.jsonl", ["a", "b", "c", "d"]
    expected = {name: Outcome(name, "left", f"{name}.tif") for name in names}
    done = [Outcome(name, "done", f"{name}.tif", "exp", 2.0, 3.0, job_sha256=name, hqnr=0.5) for name in names]
    found = [replace(one, status="kept", seconds=None, megapixels_per_second=None, hqnr=None) for one in done]
    with Summary(path, expected, keep=True) as later:
        with Summary(path, expected, keep=True) as first:
            first.add(done[0])
            later.add(done[1])
            first.add(found[1])
            first.add(done[3])
        assert list(read_summary([path]).values()) == [done[0], replace(done[1], status="kept"), done[3]]
        later.add(found[0])
        later.add(Outcome("c", "failed", "c.tif", message="why"))
        assert read_summary([path])["a"] == replace(done[0], status="kept")
    last = {outcome.scene: outcome for outcome in later.outcomes}
    assert last == {
        "a": replace(done[0], status="kept"), "b": done[1],
        "c": Outcome("c", "failed", "c.tif", message="why"), "d": done[3],
    }  # fmt: skip
    assert [json.loads(line)["scene"] for line in path.read_text().splitlines()] == names
    assert os.listdir(tmp_path) == ["summary.jsonl"]


TELLS = """
import sys
from pathlib import Path
from pansharpen_cli.batch.summary import Outcome, Summary
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    name = f"{sys.argv[2]}{number}"
    with Summary(Path(sys.argv[1]), {name: Outcome(name, "left", name)}, keep=True) as summary:
        summary.add(Outcome(name, "failed", name))
"""


def test_batches_that_end_together_forget_no_line_of_each_other(tmp_path):
    path, pipes = tmp_path / "summary.jsonl", {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    several = [subprocess.Popen([sys.executable, "-c", TELLS, str(path), name], **pipes) for name in "abc"]
    assert [one.stdout.readline() for one in several] == ["ready\n"] * 3
    for one in several:
        one.stdin.close()
    assert [one.wait(60) for one in several] == [0] * 3
    assert set(summary(tmp_path)) == {f"{name}{number}" for name in "abc" for number in range(40)}
    assert os.listdir(tmp_path) == ["summary.jsonl"]


REPLACES = """
import os, sys
from contextlib import nullcontext
from pathlib import Path
from pansharpen_cli.batch import summary
from pansharpen_cli.batch.summary import Summary
summary.turn = nullcontext  # nobody has to wait for it
def halt(partial, path):
    print("ready", flush=True)
    sys.stdin.read()
    replace(partial, path)
replace, os.replace = os.replace, halt
with Summary(Path(sys.argv[1]), {}, keep=True):
    pass
"""


@needs_proc
def test_what_a_batch_left_that_was_killed_while_it_replaced_the_summary_goes(tmp_path):
    """By the next one, whether it is to resume; that of one which lives stays its own."""
    path = tmp_path / "summary.jsonl"
    command = [sys.executable, "-c", REPLACES, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as killed, subprocess.Popen(command, **pipes) as living:
        assert killed.stdout.readline() == living.stdout.readline() == "ready\n"
        killed.kill()
        killed.wait()
        assert len(list(tmp_path.glob(".*.partial"))) == 2
        with Summary(path, {}):
            [theirs] = tmp_path.glob(".*")
        assert f".{living.pid}." in theirs.name
        living.stdin.close()
    assert living.returncode == 0
    assert os.listdir(tmp_path) == ["summary.jsonl"]


def test_what_another_batch_made_after_this_one_gave_it_up_is_done(tmp_path):
    """One that waited for it in vain and still has other work counts it as the other one told."""
    path, left = tmp_path / "summary.jsonl", {"a": Outcome("a", "left", "a.tif")}
    done = Outcome("a", "done", "a.tif", "exp", 2.0, 3.0, job_sha256="a")
    with Summary(path, left, keep=True) as summary:
        summary.add(Outcome("a", "failed", "a.tif", message="a.tif is being made by another run; wait for it"))
        with Summary(path, left, keep=True) as other:
            other.add(done)
    assert summary.outcomes == [done]
    assert read_summary([path]) == {"a": done}


def test_what_is_told_of_scenes_of_another_batch_is_kept_to_resume(tmp_path):
    """Behind one's own, as it was, and not counted."""
    path = tmp_path / "summary.jsonl"
    a, b = (Outcome(name, "failed", f"{name}.tif", message="why") for name in ("a", "b"))
    for names, keep, told in (
        ("a", False, ["a"]),
        ("b", True, ["b", "a"]),
        ("a", True, ["a", "b"]),
        ("b", False, ["b"]),
    ):
        before = path.read_text().splitlines() if path.exists() else []
        with Summary(path, {name: Outcome(name, "left", "") for name in names}, keep=keep) as found:
            found.add({"a": a, "b": b}[names])
        lines = path.read_text().splitlines()
        assert [json.loads(line)["scene"] for line in lines] == told
        assert set(lines[1:]) <= set(before)
        assert [outcome.scene for outcome in found.outcomes] == [names]


def test_scenes_that_another_batch_made_meanwhile_stay_its_own(tmp_path):
    path = tmp_path / "summary.jsonl"
    done = {name: Outcome(name, "done", f"{name}.tif") for name in ("a", "b")}
    with Summary(path, {"a": Outcome("a", "left", "")}, keep=True) as found:
        with Summary(path, {"b": Outcome("b", "left", "")}, keep=True) as other:
            other.add(done["b"])
        found.add(done["a"])
    assert found.outcomes == [done["a"]]
    assert read_summary([path]) == done


@pytest.mark.parametrize(("job", "told", "seconds"), [("1", None, 2.0), ("2", None, None), ("1", 9.0, 9.0)])
def test_a_kept_product_took_what_its_own_job_took(job, told, seconds, tmp_path):
    made = Outcome("a", "done", "a.tif", "exp", 2.0, job_sha256="1")
    kept = Outcome("a", "kept", "a.tif", "exp", told, job_sha256=job)
    path = tmp_path / "summary.jsonl"
    path.write_text("".join(json.dumps(asdict(outcome)) + "\n" for outcome in (made, kept)))
    assert read_summary([path]) == {"a": replace(kept, seconds=seconds)}


# what comes of it


def test_what_failed_is_told_and_the_rest_is_made(tmp_path):
    """By one number an exit code, by one object stdout, by one line a scene the summary, by sentences stderr."""
    make_scenes(tmp_path / "in", 4, broken=[1])
    (tmp_path / "in" / "s002" / "alone_PAN.tif").write_bytes((tmp_path / "in" / "s002" / "pan.tif").read_bytes())
    done = run(tmp_path / "in", "-o", tmp_path / "out", "-m", "exp", "--qnr", "--json", "--workers", "2")
    assert done.returncode == 5, done.stderr
    said = json.loads(done.stdout)
    assert {name: said[name] for name in ("scenes", "done", "kept", "failed", "left")} == {
        "scenes": 4, "done": 3, "kept": 0, "failed": 1, "left": 0,
    }  # fmt: skip
    assert [lone["path"].rpartition("/")[2] for lone in said["unpaired"]] == ["alone_PAN.tif"]
    assert "alone_PAN.tif is left out" in done.stderr
    found = summary(tmp_path / "out")
    assert list(found) == ["s000", "s001", "s002", "s003"]
    failed = found.pop("s001")
    assert (failed["status"], failed["attempts"]) == ("failed", 1)  # bad input stays bad
    assert "s001/ms.tif is not a readable" in failed["message"]
    assert "s001 failed" in done.stderr
    assert "1 of 4 scenes failed" in done.stderr
    for name, line in found.items():
        assert (line["status"], line["method"], line["product"]) == ("done", "exp", str(tmp_path / f"out/{name}.tif"))
        assert 0.5 < line["hqnr"] <= 1
        speed = 128 * 128 / 1e6 / line["seconds"]  # told in three decimals
        assert line["megapixels_per_second"] == pytest.approx(speed, rel=0.05, abs=6e-4)
        assert np.hypot(*line["shift"]) < 1
        with rasterio.open(line["product"]) as file:
            assert file.tags(ns="PANSHARPEN")["JOB_SHA256"] == line["job_sha256"]


def test_fail_fast_begins_no_more(tmp_path):
    make_scenes(tmp_path / "in", 4, broken=[1])
    counts = []
    sharpen_all(batch(tmp_path / "in", tmp_path / "out", fail_fast=True), lambda *told: counts.append(told))
    assert statuses(tmp_path / "out") == {"s000": "done", "s001": "failed", "s002": "left", "s003": "left"}
    assert counts == [(1, 0, 4), (2, 1, 4)]


def test_the_plan_is_what_then_happens(tmp_path):
    make_scenes(tmp_path / "in", 3, broken=[1])
    task = batch(tmp_path / "in", tmp_path / "out")
    task = replace(task, jobs=[replace(job, model="gsa", tile=64) for job in task.jobs])
    first, broken, last = plan(task)
    assert not (tmp_path / "out").exists()
    assert (broken.status, broken.scene) == ("unusable", "s001")
    assert "not a readable" in broken.message
    assert (first.method, first.tiles, first.seconds) == ("gsa", 4, None)
    sharpen_all(task)
    for one in (first, last):
        with rasterio.open(tmp_path / "out" / f"{one.scene}.tif") as file:
            assert (one.width, one.height, one.bands) == (file.width, file.height, file.count)
            assert 0.2 * one.output < Path(file.name).stat().st_size < one.output + 20_000
    assert [one.status for one in plan(replace(task, resume=True))] == ["kept", "unusable", "kept"]
    made = summary(tmp_path / "out")
    speed = np.median([made[name]["megapixels_per_second"] for name in ("s000", "s002")])
    again = replace(task, jobs=[replace(job, overwrite=True) for job in task.jobs])
    assert next(plan(again)).seconds == pytest.approx(128 * 128 / 1e6 / speed)
    told = run(tmp_path / "in", "-o", tmp_path / "out", "-m", "gsa", "--overwrite", "--dry-run")
    assert told.returncode == 5
    assert "128 x 128" in told.stdout
    assert "1 of 3 scenes cannot be sharpened" in told.stderr


def test_products_are_not_replaced_unasked(tmp_path):
    make_scenes(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "s001.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"s001\.tif exist; --resume the batch"):
        sharpen_all(batch(tmp_path / "in", tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["s001.tif"]
    sharpen_all(batch(tmp_path / "in", tmp_path / "out", resume=True))
    assert statuses(tmp_path / "out") == {"s000": "done", "s001": "failed"}  # it is not ours
    assert (tmp_path / "out" / "s001.tif").read_text() == "mine"
    sharpen_all(batch(tmp_path / "in", tmp_path / "out", resume=True, overwrite=True))
    assert statuses(tmp_path / "out") == {"s000": "kept", "s001": "done"}


def test_finished_is_not_what_exists(tmp_path):
    """A product is made again when it lost a part, or when its input or the parameters are others."""
    make_scenes(tmp_path / "in", 4)
    first = batch(tmp_path / "in", tmp_path / "out", qnr=True)
    sharpen_all(first)
    made = summary(tmp_path / "out")
    (tmp_path / "in" / "s001" / "ms.tif").write_bytes((tmp_path / "in" / "s000" / "ms.tif").read_bytes())
    broken = tmp_path / "out" / "s002.tif"
    content = bytearray(broken.read_bytes())
    with rasterio.open(broken) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content[offset + 40 : offset + 80] = bytes(40)
    broken.write_bytes(content)
    sharpen_all(batch(tmp_path / "in", tmp_path / "out", qnr=True, resume=True))
    again = summary(tmp_path / "out")
    assert {name: line["status"] for name, line in again.items()} == {
        "s000": "kept", "s001": "done", "s002": "done", "s003": "kept",
    }  # fmt: skip
    assert again["s003"] == made["s003"] | {"status": "kept"}  # its figures are known
    assert again["s001"]["job_sha256"] != made["s001"]["job_sha256"]
    assert np.array_equal(pixels(broken), pixels(broken))
    others = replace(first, jobs=[replace(job, dtype="float32") for job in first.jobs], resume=True)
    sharpen_all(others)
    assert set(statuses(tmp_path / "out").values()) == {"done"}
    assert pixels(broken).dtype == np.float32
    moved = replace(others, jobs=[replace(job, model="exp", tile=64, threads=2) for job in others.jobs])
    sharpen_all(moved)  # what does not change the pixels is no reason
    assert set(statuses(tmp_path / "out").values()) == {"kept"}
