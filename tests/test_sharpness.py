"""The MTF gain of an MS camera, measured in the scene: against images that were blurred by known ones."""

import numpy as np
import pytest

from pansharpen_cli.errors import UsageError
from pansharpen_cli.evaluation import reduced
from pansharpen_cli.evaluation.assessment import Measures, measure, sharpen
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import SENSORS, Sensor, find_sensor
from pansharpen_cli.imaging.sharpness import NARROWEST, WIDEST, Likeness, measured_gain
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.coregistration import measure as measure_shift
from pansharpen_cli.inputs.coregistration import measure_gain
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.method import choose

SIZE = 256


def ground(seed, size=SIZE):
    """A PAN (size, size) with the power spectrum of ground, 1 / f^2, whose border wraps."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=(size, size)))
    return 1000 + 40 * np.fft.ifft2(noise / frequency).real


def seen(pan, ratio, gain, dx=0.0, dy=0.0):
    """The PAN as an MS camera shows it that lies off by (dx, dy): a Gaussian MTF, and pixels in the middle of areas."""
    fy, fx = np.fft.fftfreq(pan.shape[0])[:, None], np.fft.fftfreq(pan.shape[1])
    blur = gain ** ((2 * ratio) ** 2 * (fy**2 + fx**2))
    place = np.exp(2j * np.pi * (fx * (area_phase(ratio) - dx) + fy * (area_phase(ratio) - dy)))
    return np.fft.ifft2(np.fft.fft2(pan) * blur * place).real[::ratio, ::ratio]


def bands(pan, ratio, gain, dx=0.0, dy=0.0, noise=0.0, seed=9):
    """Three bands: two that PAN is made of, with detail of their own that cancels out, and one that it does not see."""
    random = np.random.default_rng(seed)
    own = seen(ground(seed + 1, len(pan)), ratio, gain, dx, dy) - 1000
    common = seen(pan, ratio, gain, dx, dy)
    stranger = seen(ground(seed + 2, len(pan)), ratio, gain)
    made = np.stack([common + 0.5 * own, 0.7 * (common - 0.5 * own), stranger])
    return made + noise * random.normal(size=made.shape)


@pytest.mark.parametrize("gain", [0.15, 0.2, 0.3, 0.45, 0.8])
@pytest.mark.parametrize("ratio", [2, 4])
def test_a_gain_is_found(gain, ratio):
    pan = ground(1)
    assert Likeness.of_window(pan, bands(pan, ratio, gain), 0, 0).gain() == pytest.approx(gain, rel=0.1)


def test_noise_makes_it_no_other():
    """A twentieth of the MS's standard deviation, more than any camera's."""
    pan = ground(2)
    ms = bands(pan, 4, 0.3, noise=0.05 * pan.std())
    windows = [Likeness.of_window(pan, ms, 0, 0)]
    assert sum(windows[1:], start=windows[0]).gain() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("dx", "dy"), [(1.5, 0.0), (-0.8, 2.25)])
def test_a_shift_is_no_blur(dx, dy):
    pan = ground(3)
    ms = bands(pan, 4, 0.35, dx, dy)
    right = Likeness.of_window(pan, ms, dx, dy).gain()
    wrong = Likeness.of_window(pan, ms, -dx, -dy).gain()
    assert right == pytest.approx(0.35, rel=0.07)
    assert wrong is None or wrong < 0.8 * right


def test_what_is_not_alike_tells_nothing():
    pan, other = ground(4), ground(5)
    assert Likeness.of_window(pan, bands(other, 4, 0.3), 0, 0).gain() is None
    flat = Likeness.of_window(np.ones((SIZE, SIZE)), np.ones((3, SIZE // 4, SIZE // 4)), 0, 0)
    assert flat.gain() is None
    good = Likeness.of_window(pan, bands(pan, 4, 0.3), 0, 0)
    assert measured_gain([]) is None
    assert measured_gain([good, flat]) is None
    assert measured_gain([good, good]) == pytest.approx(0.3, rel=0.07)


@pytest.mark.parametrize(("gain", "told"), [(0.05, NARROWEST), (0.9, WIDEST)])
def test_gains_that_filters_do_not_have_are_bounded(gain, told):
    pan = ground(6)
    assert measured_gain([Likeness.of_window(pan, bands(pan, 4, gain), 0, 0)] * 2) == told


@pytest.mark.parametrize(
    ("scenes", "low", "high"),
    [
        (["l8_madrid", "l8_plain_a", "l8_plain_b", "l8_momotombo"], WIDEST, WIDEST),
        (["l7/01", "l7/05", "l7/30"], 0.29, 0.36),
        (["geoeye1_fields_w"], 0.22, 0.28),  # published: 0.23
        (["pleiades_arena"], NARROWEST, NARROWEST),
        (["wv2_rotterdam_1", "wv2_rotterdam_2", "wv2_urban_w"], WIDEST, WIDEST),  # their maker restored them
    ],
)
def test_scenes_of_one_camera_agree(scenes, low, high, data):
    for name in scenes:
        with Scene.open(str(data / name / "pan.tif"), str(data / name / "ms.tif")) as scene:
            canvas = SceneCanvas.of(scene)
            assert low <= measure_gain(canvas, measure_shift(canvas)) <= high, name


@pytest.mark.parametrize("gain", [0.15, 0.45])
@pytest.mark.parametrize("name", ["wv2_park", "ikonos_mixed_w"])
def test_it_brings_a_product_nearer_to_the_truth(name, gain, data):
    """A real MS, blurred by a camera that nobody told: with what is measured as good as with its own gain."""
    true = Sensor("true", {}, 0.15, gain)
    scene = reduced.load(data / name / "pan.tif", data / name / "ms.tif", sensor=true)
    pan, ms = scene.pan[0].astype(float), scene.ms.astype(float)
    rows, cols = ((size - 128) // 4 * 4 for size in pan.shape)
    starts = [(row, col) for row in (0, rows) for col in (0, cols)]
    windows = [
        Likeness.of_window(pan[y : y + 128, x : x + 128], ms[:, y // 4 : y // 4 + 32, x // 4 : x // 4 + 32], 0, 0)
        for y, x in starts
    ]
    found = find_sensor(f"{measured_gain(windows):.2f}")
    assert found.other_gain == pytest.approx(gain, abs=0.03)

    method = choose("adknet-per-band.x4", scene)

    def ergas(sensor):
        backend, _ = method.backend(scene, sensor, "cpu", 2)
        hrms = sharpen(scene, backend, method.radiometry, method.order, method.phase)
        return measure(scene, hrms, sensor, Measures.of(["ERGAS"]))["ERGAS"].value

    assert ergas(found) < 0.95 * ergas(SENSORS["generic"])
    assert ergas(found) == pytest.approx(ergas(true), rel=0.02)


def test_a_sensor_may_be_a_gain():
    assert find_sensor("WV3") is SENSORS["WV3"]
    assert find_sensor("0.28").gain("red") == 0.28
    for text in ("WV9", "0", "1", "-0.3", "nan", "inf", ""):
        with pytest.raises(UsageError, match="sensor takes generic, QB"):
            find_sensor(text)
