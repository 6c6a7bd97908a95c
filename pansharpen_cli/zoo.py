"""Models, found by name or path: folders with spec.json, weights.safetensors, a model card and perhaps model.onnx; and
lone ONNX files, which carry their spec."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pansharpen_cli.backends.onnx_file import OnnxFile
from pansharpen_cli.errors import ModelError, OutputError, nearest
from pansharpen_cli.modelspec import ModelSpec
from pansharpen_cli.system.files import check_folder, digest, in_words
from pansharpen_cli.system.locks import alone

if TYPE_CHECKING:
    from pansharpen_cli.networks.network import Network

log = logging.getLogger(__name__)

SPEC = "spec.json"
SPEC_LIMIT = 2**20
"""Bytes of it."""
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
LOCK = ".lock"
"""Of the run that makes the model."""


@dataclass(frozen=True)
class Model:
    """A model that was found and whose description was read. `lone`: the ONNX file that is all there is of it; its
    folder then only holds that file."""

    folder: Path
    spec: ModelSpec
    lone: Path | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def exported(self) -> Path | None:
        """Its ONNX file, if it has one."""
        inside = self.folder / ONNX
        return self.lone or (inside if inside.is_file() else None)

    def onnx(self) -> OnnxFile | None:
        """That file, read. Raises ModelError if it is no export of this very network and its weights."""
        if self.exported is None:
            return None
        file = OnnxFile.read(self.exported)
        if not file.spec.same_network(self.spec):
            raise ModelError(
                f"{file.path} is no export of the weights that {self.folder / SPEC} describes; delete it, or write it "
                f"anew: `pansharpen export {self.folder} -o {file.path} --overwrite`"
            )
        return file

    def load(self, bands: int | None = None) -> Network:
        """The network with its weights, for inference; a model of any bands is built for so many (default: one).

        Raises ModelError if the weights are not the described ones.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from pansharpen_cli.networks import build
        from pansharpen_cli.networks.layers import load_exactly

        if self.lone:
            raise ModelError(f"{self.lone} holds no weights for torch; use it with --backend onnx, or name its folder")
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise ModelError(f"{self.folder} has no {WEIGHTS}; import or train the model again")
        try:
            found = digest(path)
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error
        if found != self.spec.weights_sha256:
            raise ModelError(f"{path} is not the file that {SPEC} describes (its SHA-256 differs); restore the model")
        network = build(self.spec.network, len(self.spec.bands) or bands or 1, self.spec.ratio, self.spec.options)
        try:
            load_exactly(network, load_file(path), f"{self.spec.network} with the options in {SPEC}")
        except (SafetensorError, ModelError) as error:
            raise ModelError(f"{path} does not fit: {error}") from error
        return network.eval()


def folders() -> list[Path]:
    """Where models are looked for, first wins: $PANSHARPEN_MODELS, then the models that came with the program."""
    package = Path(__file__).parent
    shipped = package / "models"
    checkout = package.parent / "models"
    own = [Path(part) for part in os.environ.get("PANSHARPEN_MODELS", "").split(os.pathsep) if part]
    return [*own, shipped if shipped.is_dir() else checkout]


def models() -> list[Model]:
    """All models that are found, by the names in their spec.json; a broken one is only warned of. Of several of one
    name that of the first place counts, and in one place that whose folder is called so, as a copy's is not."""
    found: dict[str, Model] = {}
    for place in folders():
        for model in sorted(_readable(place), key=lambda model: model.folder.name != model.name):
            found.setdefault(model.name, model)
    return sorted(found.values(), key=lambda model: model.name)


def _readable(place: Path) -> Iterator[Model]:
    try:
        os.listdir(place)
    except PermissionError:  # which glob passes over, or not
        log.warning("%s may not be looked into by you; its models are left out", place)
        return
    except OSError:  # there is no such folder
        return
    for spec in sorted(place.glob(f"*/{SPEC}")):
        try:
            yield read(spec.parent)
        except ModelError as error:
            log.warning("%s; it is left out", error)


def read(folder: Path) -> Model:
    """The model in a folder."""
    path = folder / SPEC
    try:
        if os.path.isfile(path) and path.stat().st_size > SPEC_LIMIT:
            raise ModelError(f"{path} is larger than any description ({SPEC_LIMIT >> 20} MiB); restore the model")
        return Model(folder, ModelSpec.from_json(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder} is not a model folder: it needs a readable {SPEC}") from error


def read_onnx(path: Path) -> Model:
    """The model in a lone ONNX file."""
    return Model(path.parent, OnnxFile.read(path).spec, path)


def is_lone(name: str) -> bool:
    """Whether it names an ONNX file, as `find` sees it."""
    return name.endswith(".onnx") and not os.path.isdir(name)


def find(name: str, besides: Iterable[str] = ()) -> Model:
    """A model by its name in the zoo, by its folder, or by its ONNX file. It is the one that `models` lists; a name
    that none has may be that of a folder in the zoo.

    `besides`: names of other things that the caller takes; who misspelt one is told.
    """
    if is_lone(name):
        return read_onnx(Path(name))
    if os.sep in name or os.path.isdir(name):
        return read(Path(name))
    known = {model.name: model for model in models()}
    if name in known:
        return known[name]
    for place in folders():
        if os.path.isfile(place / name / SPEC):  # which any name can be asked for
            return read(place / name)
    hint = nearest(name, [*known, *besides])
    raise ModelError(f"no model is called {name!r}; there are {', '.join(known) or 'none'}{hint}")


def is_taken(folder: Path) -> bool:
    """Whether a model is there already, be it only its ONNX file."""
    return any(os.path.exists(folder / name) for name in (SPEC, ONNX))  # also where one may not look


def check_place(folder: Path, overwrite: bool) -> None:
    """Raises OutputError unless a model folder may appear there, which is to be asked before the work."""
    if is_taken(folder) and not overwrite:
        raise OutputError(f"{folder} is a model already; give --overwrite or another folder")
    check_folder(folder)


@contextmanager
def claimed(folder: Path, overwrite: bool) -> Iterator[None]:
    """While no other run makes a model in `folder`, and one may appear there. Folders that are made for it go again if
    they stay empty. Raises OutputError."""
    check_place(folder, overwrite)
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        with in_words(f"{folder} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / LOCK, folder):
            check_place(folder, overwrite)  # again: another run may just have ended
            yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def save(folder: Path, spec: ModelSpec, network: Network, card: str) -> Model:
    """Write a model folder. Nothing of an older one in its place goes before all of the new one is written; spec.json
    comes last, so that a folder with one is complete. The older one's export goes with it. Raises OutputError.

    What the network declares (halo, alignment, digest of its weights) goes into the spec that is written.
    """
    from safetensors.torch import save

    spec = replace(spec, halo=network.halo, multiple_of=network.multiple_of, alignment=network.alignment)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save(weights, {"pansharpen": replace(spec, weights_sha256="").to_json()})
    spec = replace(spec, weights_sha256=hashlib.sha256(content).hexdigest())
    files = {WEIGHTS: content, "README.md": card.encode(), SPEC: spec.to_json().encode()}
    partials = {name: folder / f".{name}.partial" for name in files}
    try:
        with in_words(f"{folder} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
            for name, partial in partials.items():
                partial.write_bytes(files[name])
            _remove_export(folder, spec)
            for name, partial in partials.items():
                os.replace(partial, folder / name)
    finally:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink()
    return Model(folder, spec)


def _remove_export(folder: Path, spec: ModelSpec) -> None:
    """The ONNX file of the model that `spec` takes the place of, unless it is of the same one."""
    try:
        Model(folder, spec).onnx()
    except ModelError:
        (folder / ONNX).unlink()
        log.info("%s was exported from other weights: it is removed", folder / ONNX)
