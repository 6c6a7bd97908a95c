"""Damage is done for real, many times over: signals and failing system calls at any point of a run, disks that fill
up, folders that vanish, inputs that change, memory that runs out. After each the product is whole or not there, what is
left can be gone on with, the exit code and one sentence say what was, and nothing hangs.

`make faults` does it all and prints a report; without PANSHARPEN_SLOW a sample of it is done.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import rasterio
from corpus import Bad, corpus, prepare
from examine import left_over, told, wrong_product
from worlds import World
from zygote import Case, Ended, Fault, Zygote

from pansharpen_cli import zoo

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks a process a case, and looks at it in /proc"),
]

SLOW = "PANSHARPEN_SLOW" in os.environ
HERE = Path(__file__).parent
WORLD = World(bands=3, dtype="uint16", pan_size=(192, 160), ms_size=(48, 40), nodata=0)
CHANGED = World(bands=3, dtype="uint16", pan_size=(192, 160), ms_size=(48, 40), nodata=0, waves=20)
"""Of the same size."""
NOBODY = 65534
MEMORY = 2**30
"""Bytes of address space that a bad input may take."""

RUN = ("run", "pan.tif", "ms.tif", "-o", "out.tif", "-m", "gsa", "-j", "1", "-q", "--coregister", "off")
SCENARIOS: dict[str, Sequence[str]] = {
    "GeoTIFF": (*RUN, "--tile-size", "64"),
    "COG": (*RUN, "-f", "cog"),
    "resumable": (*RUN, "--tile-size", "64", "--resume"),
    "over an older one": (*RUN, "--overwrite", "--quicklook", "out.png"),
    "changed": RUN,
}
"""Runs that are disturbed; the last one of another scene."""


def some(cases: Sequence[object], most: int) -> list:
    """All of them, or a sample of `most`."""
    return list(cases) if SLOW or len(cases) <= most else random.Random(0).sample(list(cases), most)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """What makes system calls fail, if it can be compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    path = tmp_path_factory.mktemp("library") / "faults.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", path, HERE / "faults.c", "-ldl"], check=True)
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, library: Path | None) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    base = tmp_path_factory.getbasetemp()
    ours = [path for path in (base.parent, base, folder) if path.name.startswith(("pytest-", "bench"))]
    for path in ours if os.getuid() == 0 else ():  # NOBODY must get there too
        path.chmod(0o755)
    (folder / "scene").mkdir()
    WORLD.write(folder / "scene")
    warm_up = ["run", folder / "scene/pan.tif", folder / "scene/ms.tif", "-o", folder / "out.tif", *RUN[5:]]
    zygote = Zygote(folder / "streams", warm_up, library)
    yield Bench(folder, zygote, library is not None)
    zygote.close()


@dataclass
class Bench:
    """Where runs are disturbed: a scene, its right product, and a folder for one case after the other."""

    folder: Path
    zygote: Zygote
    breaks_calls: bool
    wholes: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def desk(self) -> Path:
        """The folder in which a case runs."""
        return self.folder / "desk"

    def lay_out(self, scenario: str) -> set[str]:
        """A fresh desk; returns the names on it."""
        shutil.rmtree(self.desk, ignore_errors=True)
        shutil.copytree(self.folder / "scene", self.desk)
        if scenario == "changed":
            CHANGED.write(self.desk)
        if scenario == "over an older one":
            (self.desk / "out.tif").write_bytes(b"older")
            (self.desk / "out.png").write_bytes(b"older")
        return set(os.listdir(self.desk))

    def run(self, scenario: str, **harm: object) -> Ended:
        return self.zygote.run(Case(SCENARIOS[scenario], self.desk, **harm))  # type: ignore[arg-type]

    def whole(self, scenario: str) -> np.ndarray:
        """What the product holds when nothing disturbs it."""
        if scenario not in self.wholes:
            self.lay_out(scenario)
            assert self.run(scenario).code == 0
            self.wholes[scenario] = pixels(self.desk / "out.tif")
        return self.wholes[scenario]

    def calls(self, scenario: str) -> dict[str, int]:
        """How many system calls of each kind it takes."""
        if not self.breaks_calls:
            pytest.skip("needs a C compiler, for what makes system calls fail")
        if scenario not in self.counts:
            self.lay_out(scenario)
            self.counts[scenario] = self.run(scenario).calls
        return self.counts[scenario]


def pixels(path: Path) -> np.ndarray:
    """(bands + 1, h, w): the pixels and the mask."""
    with rasterio.open(path) as file:
        return np.concatenate([file.read(), file.read_masks(1)[None]])


def half_made(path: Path, whole: np.ndarray, code: int | None) -> str:
    """The product is right, or the older one or none is there; after success it is right."""
    if not path.exists():
        return "no product after success" if code == 0 else ""
    if path.read_bytes() == b"older":
        return "the older product after success" if code == 0 else ""
    try:
        return "" if np.array_equal(pixels(path), whole) else "other pixels"
    except rasterio.errors.RasterioIOError as error:
        return f"a product that cannot be read: {error}"


KILLED = {-signal.SIGKILL}


def judge(bench: Bench, scenario: str, ended: Ended, before: set[str], codes: set[int], may_stay: bool = False) -> str:
    """A complaint, or nothing. A killed run is gone on with; `may_stay`: temporaries could not be removed."""
    product, resumable = bench.desk / "out.tif", {".out.tif.tiles"} if scenario == "resumable" else set()
    killed = ended.code == -signal.SIGKILL
    complaint = told(ended, codes) or half_made(product, bench.whole(scenario), ended.code)
    if complaint:
        return complaint
    stays = {name for name in os.listdir(bench.desk) if name.startswith(".out.") and name.endswith(".partial")}
    if not killed:
        return left_over(bench.desk, before, "out.tif", *resumable, *(stays if may_stay else ()))
    complaint = left_over(bench.desk, before, "out.tif", "out.png", *resumable, *stays)
    return complaint or _gone_on(bench, scenario)


def _gone_on(bench: Bench, scenario: str) -> str:
    """The same again with --resume ends as if nothing had been, and clears up."""
    extra = ("--overwrite",) if scenario == "over an older one" else ()
    again = bench.zygote.run(Case((*SCENARIOS["resumable"], *extra), bench.desk))
    if again.code or not np.array_equal(pixels(bench.desk / "out.tif"), bench.whole(scenario)):
        return f"it cannot be gone on with: {again.err}"
    left = [name for name in os.listdir(bench.desk) if name.startswith(".out.tif.")]
    return f"left over after going on: {left}" if left else ""


def disturb(
    bench: Bench,
    tally: Callable[..., None],
    kind: str,
    scenario: str,
    harms: Sequence[dict],
    codes: set[int],
    may_stay: bool = False,
) -> None:
    """One run after the other, each with a harm of its own; all complaints together."""
    bench.whole(scenario)
    complaints = []
    for harm in harms:
        before = bench.lay_out(scenario)
        ended = bench.run(scenario, **harm)
        complaint = judge(bench, scenario, ended, before, codes, may_stay)
        tally(kind, complaint)
        if complaint:
            complaints.append(f"{harm}: {complaint}")
    assert not complaints, "\n".join(complaints)


SIGNALS = {"kill -9": (signal.SIGKILL, KILLED), "SIGTERM": (signal.SIGTERM, {143}), "Ctrl-C": (signal.SIGINT, {130})}


@pytest.mark.parametrize("scenario", [*SCENARIOS][:-1])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_at_any_system_call(name: str, scenario: str, bench: Bench, tally):
    """One by one over the whole run, as if it were held at each of its calls."""
    sign, codes = SIGNALS[name]
    last = bench.calls(scenario)["any"]
    points = sorted({1 + round(part * (last - 1) / 39) for part in range(40)})
    harms = [{"fault": Fault("any", nth, sign=sign)} for nth in some(points, 2)]
    disturb(bench, tally, name, scenario, harms, codes | {0})


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_at_any_time(name: str, bench: Bench, tally):
    """Between its calls too, while it computes."""
    sign, codes = SIGNALS[name]
    chance = random.Random(name)
    harms = [{"sign": sign, "after": chance.uniform(0.02, 0.25)} for _ in range(60 if SLOW else 3)]
    disturb(bench, tally, name, "GeoTIFF", harms, codes | {0, -sign})  # the handler is not there at first


LOST = """
import signal, sys, time
from pansharpen_cli import pipeline
from pansharpen_cli.cli import app

class Dropped:
    def __del__(self):
        signal.raise_signal({sign})

def dropped(*_):
    Dropped()
    time.sleep(30)

def replaced(*_):
    try:
        signal.raise_signal({sign})
    except BaseException:
        failed = RuntimeError("No GDAL environment exists")
    raise failed

pipeline.choose = {how}
sys.argv = ["pansharpen", *{arguments}]
app.main()
"""


@pytest.mark.parametrize("how", ["dropped", "replaced"])
@pytest.mark.parametrize("name", ["SIGTERM", "Ctrl-C"])
def test_a_signal_that_is_lost(how: str, name: str, tmp_path: Path):
    """In a destructor, whose errors Python tells and forgets, and in a library that tells another error in its place:
    it is obeyed all the same."""
    WORLD.write(tmp_path)
    sign, (code,) = SIGNALS[name]
    script = LOST.format(sign=int(sign), how=how, arguments=RUN)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert "nothing was written" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["ms.tif", "pan.tif"]


FAILING = {
    "full disk": ("write", errno.ENOSPC, True, {0, 1}),
    "quota": ("write", errno.EDQUOT, True, {0, 1}),
    "write error": ("write", errno.EIO, False, {0, 1}),
    "read error": ("read", errno.EIO, False, {0, 1, 3}),
    "failing disk": ("read", errno.EIO, True, {0, 1, 3, -signal.SIGABRT}),
    "cannot open": ("open", errno.EIO, False, {0, 1, 3}),
    "too many open files": ("open", errno.EMFILE, False, {0, 1, 3}),
    "sync error": ("sync", errno.EIO, False, {1}),
    "rename error": ("rename", errno.EACCES, False, {1}),
    "disk gone": ("any", errno.EIO, True, {0, 1, 3, -signal.SIGABRT}),
}
"""Of which calls, the error, whether it lasts, and the exit codes. GDAL 3.10 may abort when it cannot read what it is
writing."""


@pytest.mark.parametrize("scenario", [*SCENARIOS][:-1])
@pytest.mark.parametrize("name", FAILING)
def test_a_failing_system_call(name: str, scenario: str, bench: Bench, tally):
    kind, error, lasting, codes = FAILING[name]
    last = bench.calls(scenario)[kind]
    points = sorted({1 + round(part * (last - 1) / 11) for part in range(12)}) if last else []
    harms = [{"fault": Fault(kind, nth, error=error, lasting=lasting)} for nth in some(points, 1)]
    disturb(bench, tally, name, scenario, harms, codes, may_stay=-signal.SIGABRT in codes)


def test_the_clock_leaps(bench: Bench, tally):
    decade = 10 * 366 * 86400
    assert bench.calls("GeoTIFF")["clock"]
    harms = [{"fault": Fault("clock", nth, leap=leap)} for nth in (1, 2, 3) for leap in (decade, -decade, 3600)]
    disturb(bench, tally, "clock", "GeoTIFF", some(harms, 2), {0})


def test_files_may_grow_only_so_far(bench: Bench, tally):
    """A quota on the size of a file, from one that the first header breaks to one that all fits in."""
    harms = [{"size": size} for size in some([2**bits + more for bits in range(11, 19) for more in (0, 700)], 3)]
    disturb(bench, tally, "file size limit", "GeoTIFF", harms, {0, 1})


def test_memory_runs_out(bench: Bench, tally):
    """From next to nothing to spare to enough."""
    steps = [part * 2**18 for part in range(4, 23)] + [part * 2**22 for part in range(5, 60, 3)]
    harms = [{"memory": spare} for spare in some(steps, 3)]
    disturb(bench, tally, "memory limit", "GeoTIFF", harms, {0, 1, 3})


def test_a_thread_dies(bench: Bench, tally):
    chance = random.Random(1)
    harms = [{"dying": True, "after": chance.uniform(0.02, 0.2)} for _ in range(30 if SLOW else 2)]
    disturb(bench, tally, "thread dies", "GeoTIFF", harms, {0, 1})


# ------------------------------------------------------------------ what others do meanwhile


def vanish(desk: Path) -> None:
    shutil.rmtree(desk, ignore_errors=True)


def turn_into_a_file(desk: Path) -> None:
    shutil.rmtree(desk, ignore_errors=True)
    desk.touch()


def lock(desk: Path) -> None:
    desk.chmod(0o555)


MEANWHILE: dict[str, Callable[[Path], object]] = {
    "input cut": lambda desk: os.truncate(desk / "ms.tif", 3000),
    "PAN cut": lambda desk: os.truncate(desk / "pan.tif", 9000),
    "input changed": CHANGED.write,
    "input replaced": lambda desk: os.replace(shutil.copy(desk / "pan.tif", desk.parent / "other"), desk / "ms.tif"),
    "input removed": lambda desk: os.unlink(desk / "ms.tif"),
    "folder locked": lock,
    "folder gone": vanish,
    "folder a file": turn_into_a_file,
}


@pytest.mark.parametrize("name", MEANWHILE)
def test_what_others_do_meanwhile(name: str, bench: Bench, tally):
    """The run is not root's, who may write anywhere. A product that came before the harm is right."""
    chance, complaints = random.Random(name), []
    rights = bench.whole("GeoTIFF"), bench.whole("changed")
    for _ in range(24 if SLOW else 2):
        before = bench.lay_out("GeoTIFF")
        bench.desk.chmod(0o777)
        meanwhile = Timer(chance.uniform(0.03, 0.25), MEANWHILE[name], [bench.desk])
        meanwhile.start()
        ended = bench.run("GeoTIFF", user=NOBODY if os.getuid() == 0 else 0)
        meanwhile.join()
        complaint = told(ended, {0, 1, 3})
        if bench.desk.is_dir():
            bench.desk.chmod(0o777)
            locked = [path.name for path in bench.desk.glob(".*.partial")] if name == "folder locked" else []
            complaint = complaint or min((half_made(bench.desk / "out.tif", right, None) for right in rights), key=len)
            complaint = complaint or left_over(bench.desk, before, "out.tif", *locked)
        tally(name, complaint)
        complaints += [complaint] if complaint else []
        bench.desk.unlink() if bench.desk.is_file() else None
    assert not complaints, "\n".join(complaints)


LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((*RUN, "-o", f"{LONG}.tif"), 1),
        ((*RUN, "-o", f"{LONG}/out.tif"), 1),
        ((*RUN, "-m", LONG), 4),
        ((*RUN, "-m", f"{LONG}/{LONG}"), 4),
        (("import", LONG, "--network", "adknet", "-o", "model"), 4),
        (("qnr", f"{LONG}.tif"), 3),
    ],
)
def test_names_that_no_file_can_have(arguments: Sequence[str], code: int, bench: Bench):
    before = bench.lay_out("GeoTIFF")
    ended = bench.zygote.run(Case(arguments, bench.desk))
    assert not told(ended, {code}, "xxx")
    assert not left_over(bench.desk, before)


# ------------------------------------------------------------------ batch, train


BATCH = (
    "batch",
    "scenes",
    "-o",
    "out",
    "-m",
    "gsa",
    "--coregister",
    "off",
    "--workers",
    "2",
    "-j",
    "2",
    "-q",
    "--resume",
)


def gone(group: int) -> bool:
    """Within half a minute no process of the group is left: workers end with their parent."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_a_batch_is_stopped_again_and_again(bench: Bench, tally):
    """Its processes go with it, its products are whole, and at last it ends as one that was not stopped."""
    whole, chance, complaints = bench.whole("GeoTIFF"), random.Random(5), []
    for _ in range(6 if SLOW else 1):
        bench.lay_out("GeoTIFF")
        for number in range(4):
            shutil.copytree(bench.folder / "scene", bench.desk / "scenes" / f"s{number}")
        for _ in range(5 if SLOW else 1):
            sign, codes = chance.choice([*SIGNALS.values()])
            ended = bench.zygote.run(Case(BATCH, bench.desk, sign=sign, after=chance.uniform(0.1, 2.5)))
            complaint = told(ended, codes | {0, -sign}) or ("" if gone(ended.process) else "processes are left")
            for product in (bench.desk / "out").glob("*.tif"):
                complaint = complaint or half_made(product, whole, None)
            hidden = sorted(path.name for path in (bench.desk / "out").glob(".*.partial"))
            if hidden and sign != signal.SIGKILL:
                complaint = complaint or f"left over: {hidden}"
            tally("batch", complaint)
            complaints += [complaint] if complaint else []
        ended = bench.zygote.run(Case(BATCH, bench.desk))
        names = {f"s{number}.tif" for number in range(4)} | {"summary.jsonl"}
        complaint = told(ended, {0}) or left_over(bench.desk / "out", names)
        for name in names - {"summary.jsonl"}:
            complaint = complaint or half_made(bench.desk / "out" / name, whole, 0)
        complaints += [complaint] if complaint else []
    assert not complaints, "\n".join(complaints)


@pytest.mark.skipif(not SLOW, reason="three minutes; PANSHARPEN_SLOW=1 runs it")
def test_a_training_is_stopped_again_and_again(data: Path, tmp_path: Path, tally):
    """What there is of a model can be loaded; at last it is complete, and nothing else is left."""
    model, chance, complaints = tmp_path / "model", random.Random(6), []
    command = [
        *(sys.executable, "-m", "pansharpen_cli", "train", data / "l8_plain_a", "--validate", data / "tiny_l8"),
        *(
            "--bands",
            "blue,green,red,nir",
            "--ratio",
            "2",
            "--network",
            "premix-b",
            "-O",
            "channels=4",
            "-O",
            "layers=1",
        ),
        *("--device", "cpu", "-j", "1", "--steps", "12", "--batch", "2", "--validate-every", "3", "-q", "-o", model),
    ]
    for _ in range(8):
        sign, codes = chance.choice([*SIGNALS.values()])
        run = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
        try:
            run.wait(chance.uniform(1, 9))
        except subprocess.TimeoutExpired:
            run.send_signal(sign)
        _, err = run.communicate(timeout=60)
        complaint = told(Ended(run.returncode, 0, {}, run.pid, "", err), codes | {0, -sign})
        if (model / zoo.SPEC).exists() and not complaint:
            zoo.read(model).load()
        tally("train", complaint)
        complaints += [complaint] if complaint else []
        if run.returncode == 0:
            break
    else:
        subprocess.run([str(part) for part in command], check=True)
    zoo.read(model).load()
    assert not [path.name for path in model.iterdir() if "partial" in path.name or path.name.startswith("training.s")]
    assert not complaints, "\n".join(complaints)


# ------------------------------------------------------------------ bad inputs


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Bad]:
    return corpus(tmp_path_factory.mktemp("good"))


GROUPS = ("tag", "cut", "other")


@pytest.mark.parametrize("group", GROUPS)
def test_bad_inputs(group: str, bad_inputs: list[Bad], bench: Bench, tally):
    """Either a right product or one sentence that names the file, exit code 2 or 3; within a bound of memory."""
    groups = {bad.name: next((name for name in GROUPS if f" {name} " in bad.name), "other") for bad in bad_inputs}
    mine = [bad for bad in bad_inputs if groups[bad.name] == group]
    complaints = []
    for bad in some(mine, {"tag": 20, "cut": 4, "other": 20}[group]):
        complaint = bad_input(bad, bench)
        tally("bad input", complaint)
        if complaint:
            complaints.append(f"{bad.name}: {complaint}")
    assert not complaints, "\n".join(complaints)


def bad_input(bad: Bad, bench: Bench) -> str:
    before = prepare(bad, bench.desk)
    bench.desk.chmod(0o777)
    command = ("run", *bad.command, *RUN[3:])
    ended = bench.zygote.run(Case(command, bench.desk, memory=MEMORY, user=bad.user if os.getuid() == 0 else 0))
    codes = {"made": {0}, "refused": {2, 3}, "either": {0, 2, 3}}[bad.expected]
    made = ["out.tif"] if ended.code == 0 else []
    complaint = told(ended, codes, bad.culprit) or left_over(bench.desk, before, *made)
    if complaint or not made:
        return complaint
    return wrong_product(bench.desk / bad.command[0], bench.desk / bad.command[1], bench.desk / "out.tif")
