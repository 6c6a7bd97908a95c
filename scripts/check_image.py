#!/usr/bin/env python3
"""Checks an image of pansharpen_cli from outside, as the documentation runs it.

    scripts/check_image.py [--engine docker] IMAGE

Needs no packages. Prints a line a check; exit code 1 if one fails.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCENE = Path(__file__).parents[1] / "examples" / "l8_madrid"
USER = 1000
# Debian's minimum, and what the Dockerfile installs
SYSTEM = {"libc", "libm", "libdl", "librt", "libpthread", "libutil", "libgcc_s", "libstdc++", "libz", "libexpat"}
RUNTIME = {"data", "dev", "etc", "proc", "run", "sys", "tmp", "var"}  # where an engine mounts things


class Image:
    """An image of an engine, which may be a command with options, and a folder that stands for the user's data."""

    def __init__(self, engine: str, name: str, options: str, data: Path):
        self.engine, self.name, self.options, self.data = shlex.split(engine), name, shlex.split(options), data

    def run(self, *command: str, arguments: tuple[str, ...] = ("--read-only",)) -> str:
        """What a container without network and rights prints."""
        confined = ["--network=none", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
        started = [*self.engine, "run", "--rm", *confined, *self.options, *arguments, f"--volume={self.data}:/data"]
        return self._call([*started, self.name, *command])

    def shell(self, script: str) -> str:
        return self.run("-c", script, arguments=("--read-only", "--entrypoint=sh"))

    def inspect(self) -> dict:
        return json.loads(self._call([*self.engine, "image", "inspect", self.name]))[0]

    def changes(self, *command: str) -> list[str]:
        """Files that differ from the image after `command`, whose root was not read-only and whose user was root."""
        name = f"pansharpen-check-{os.getpid()}"
        arguments = [f"--name={name}", "--network=none", "--user=0", "--tmpfs=/tmp", f"--volume={self.data}:/data"]
        try:
            self._call([*self.engine, "run", *self.options, *arguments, self.name, *command])
            return self._call([*self.engine, "diff", name]).splitlines()
        finally:
            subprocess.run([*self.engine, "rm", "--force", name], check=False, capture_output=True)

    def _call(self, command: list[str]) -> str:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def configuration(image: Image) -> str:
    """User, command, health check and labels are there"""
    told = image.inspect()
    config = told["Config"]
    health = config.get("Healthcheck") or told.get("Healthcheck") or {}
    assert config["User"] == f"{USER}:{USER}", config["User"]
    assert config["Entrypoint"] == ["pansharpen"], config["Entrypoint"]
    assert health.get("Test") == ["CMD", "pansharpen", "doctor"], health
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert {"title", "licenses", "version", "base.name"} <= labels.keys(), labels
    assert image.run("--version").strip().endswith(labels["version"])
    return f"version {labels['version']}, {told['Size'] / 1e6:.0f} MB with its base"


def user(image: Image) -> str:
    """The program is not root, and owns none of its files"""
    assert image.shell("id -u; id -g").split() == [str(USER)] * 2
    assert image.shell("find /opt/pansharpen -user 1000 -o -perm -o+w ! -type l | head -n 5") == ""
    return image.shell("du -sm /opt/pansharpen").split()[0] + " MiB in /opt/pansharpen"


def contents(image: Image) -> str:
    """No compiler but the one that kernels for a GPU need, no pip of our own, no cache, no tests"""
    compilers = image.shell("for tool in ${NVIDIA_VISIBLE_DEVICES:-cc gcc} g++ make; do command -v $tool; done; true")
    assert compilers == ""
    unwanted = r"find /opt/pansharpen \( -name tests -o -name pip -o -name pytest -o -name '*.whl' \) | head -n 5"
    assert image.shell(unwanted) == ""
    assert image.shell("ls -A /root/.cache /var/lib/apt/lists /wheels 2> /dev/null | grep -v :; true").strip() == ""
    return "none"


def libraries(image: Image) -> str:
    """What packages take from the system is what a slim Debian and the Dockerfile give"""
    # numba's OpenMP is one of three ways to run loops that we do not have
    script = "find /opt/pansharpen -name '*.so*' -type f ! -name 'omppool*' -exec ldd {} + 2> /dev/null; true"
    pairs = [line.split()[::2] for line in image.shell(script).splitlines() if "=> /" in line]
    system = {name for name, path in pairs if not path.startswith("/opt/")}
    assert {name.split(".so")[0] for name in system} <= SYSTEM, system
    return ", ".join(sorted(system))


def doctor(image: Image) -> str:
    """doctor finds nothing wrong, whoever the user is"""
    image.run("doctor", arguments=("--read-only", "--user=23456:23456"))
    return image.run("doctor").strip().splitlines()[-1]


def zoo(image: Image) -> str:
    """The models of the repository are inside"""
    told = image.run("models")
    names = sorted(folder.name for folder in (SCENE.parents[1] / "models").iterdir() if folder.is_dir())
    assert all(name in told for name in names), told
    return ", ".join(names)


def product(image: Image) -> str:
    """run and qnr do their work on a read-only root, and own what they write"""
    begin = time.monotonic()
    image.run("run", "pan.tif", "ms.tif", "-o", "out.tif", "-q")
    seconds = time.monotonic() - begin
    hqnr = json.loads(image.run("qnr", "out.tif", "--json"))["HQNR"]
    assert 0.9 < hqnr <= 1, hqnr
    assert sorted(path.name for path in image.data.iterdir()) == ["ms.tif", "out.tif", "pan.tif"]
    assert (image.data / "out.tif").stat().st_uid == USER
    return f"{seconds:.0f} s, HQNR {hqnr:.4f}"


def nothing_else(image: Image) -> str:
    """Nothing is written outside /tmp and the mounted folder, also where it could be"""
    changed = image.changes("run", "pan.tif", "ms.tif", "-o", "root.tif", "-q")
    ours = [line for line in changed if line.split("/")[1] not in RUNTIME]
    assert not ours, ours
    return f"{len(changed)} changes by the engine"


CHECKS = (configuration, user, contents, libraries, doctor, zoo, product, nothing_else)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="docker", help="docker, podman, or one of them with options")
    parser.add_argument("--run-options", default="", help="more options for `run`")
    parser.add_argument("image")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        data.chmod(0o777)
        for name in ("pan.tif", "ms.tif"):
            shutil.copy(SCENE / name, data)
        image = Image(options.engine, options.image, options.run_options, data)
        for check in CHECKS:
            try:
                print(f"ok    {check.__doc__}: {check(image)}", flush=True)
            except AssertionError as error:
                failed += 1
                print(f"FAIL  {check.__doc__}: {error}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
