"""A network as one ONNX file that carries all a run needs: the graph, with the scene statistics as inputs; a second
graph that observes them; and the model's spec.json.

Sizes are free: any batch, any rows and columns that the network takes, and any bands where the network does. Nothing
is written that has not given torch's numbers at sizes other than the one it was traced at.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from pansharpen_cli.backends.onnx_backend import GAINS, IMAGES, OUTPUT
from pansharpen_cli.backends.onnx_file import (
    BANDS_KEY,
    FLOAT32,
    MIXED,
    OBSERVER_KEY,
    PRECISION_KEY,
    SPEC_KEY,
    OnnxFile,
)
from pansharpen_cli.backends.onnx_runtime import Place, brief, session
from pansharpen_cli.errors import ModelError
from pansharpen_cli.modelspec import ModelSpec
from pansharpen_cli.networks.consistency import Consistent
from pansharpen_cli.networks.network import Frozen, Network, Observing, SceneStatistics
from pansharpen_cli.outputs.target import check_target
from pansharpen_cli.zoo import Model

log = logging.getLogger(__name__)

OPSET = 20
"""Version of the ONNX operators; onnxruntime knows it since 1.17."""
TOLERANCE = {FLOAT32: 1e-5, MIXED: 5e-3}
"""Largest difference from torch, parts of the product's range."""
TRACED_BATCH, TRACED_ROWS, TRACED_COLS = 2, 64, 96
"""What is traced: nothing in it may be mistaken for a number of the network's."""
TRACED_BANDS, OTHER_BANDS = 3, 5
"""Of a network of any bands."""
TRIED = ((1, 128, 64, 3), (3, 32, 160, 6), (2, 104, 72, 4))
"""Batch, PAN rows and columns, and bands of networks of any, at which the written file must agree with torch; at the
last the last cell of CLAHE is cut off."""
ATTEMPTS = 5
"""Other images of a size, one of which must agree: a pixel on a threshold, or a level of CLAHE, may fall to either side
by rounding, and what is wrong is wrong in all of them."""

Shapes = dict[int, Any]
"""Axis -> its name, where a size is free."""


def missing() -> str | None:
    """What must be installed before anything can be exported; None: nothing."""
    absent = [name for name in ("onnx", "onnxscript") if not _installed(name)]
    return " and ".join(absent) if absent else None


def export(
    network: Network, spec: ModelSpec, path: Path, *, any_bands: bool = False, half: bool = False,
    overwrite: bool = False,
) -> OnnxFile:  # fmt: skip
    """Write `network`, described by `spec`, to `path`, and read it back.

    `any_bands`: the network treats bands alike, and the file shall take any number of them. `half`: convolutions in
    half precision. Raises ModelError if it cannot be exported or does not give torch's numbers, OutputError if there
    is a file by now that may not be replaced; `path` then is as before.
    """
    if absent := missing():
        raise ModelError(f"export needs {absent}; pip install 'pansharpen-cli[export]'")
    if not path.parent.is_dir():
        raise ModelError(f"{path.parent} is no folder; make it, or choose another --output")
    network = network.cpu().eval()
    graphs = _Graphs.of(network, any_bands)
    written = _file(graphs, _declared(spec, network), path, MIXED if half else FLOAT32)
    _verify(written, graphs)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(written.content)
        check_target(path, overwrite)  # again: the work took minutes
        os.replace(partial, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
    finally:
        partial.unlink(missing_ok=True)
    return written


def _declared(spec: ModelSpec, network: Network) -> ModelSpec:
    """The description with what the network says of itself: a run knows no other."""
    return replace(spec, halo=network.halo, multiple_of=network.multiple_of, alignment=network.alignment)


def export_model(
    model: Model, path: Path, *, bands: int | None = None, half: bool = False, overwrite: bool = False
) -> OnnxFile:
    """The same for a model of the zoo. One of any bands is exported for any, unless `bands` are given."""
    if model.spec.bands and bands not in (None, len(model.spec.bands)):
        raise ModelError(f"{model.name} has {len(model.spec.bands)} bands, not {bands}; leave out --bands")
    network = model.load(bands or TRACED_BANDS)
    any_bands = not model.spec.bands and bands is None
    return export(network, model.spec, path, any_bands=any_bands, half=half, overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class _Graphs:
    """What is exported of a network, and the images it is traced with.

    `observed`: the statistics that a scene gives, by name; `given`: those and the camera's, all that the network reads.
    """

    network: Network
    any_bands: bool
    observed: SceneStatistics
    given: SceneStatistics

    @classmethod
    def of(cls, network: Network, any_bands: bool) -> _Graphs:
        core = network.network if isinstance(network, Consistent) else network
        images = _images(network, TRACED_BATCH, TRACED_ROWS, TRACED_COLS, TRACED_BANDS if any_bands else network.bands)
        return cls(network, any_bands, core.observe(*images), _statistics(network, *images))

    @property
    def core(self) -> Network:
        """The network without the projection, whose only statistic is the camera's."""
        return self.network.network if isinstance(self.network, Consistent) else self.network

    @property
    def bands(self) -> int:
        return TRACED_BANDS if self.any_bands else self.network.bands

    def images(self) -> tuple[Tensor, Tensor]:
        return _images(self.network, TRACED_BATCH, TRACED_ROWS, TRACED_COLS, self.bands)

    def image_shapes(self) -> tuple[Shapes, Shapes]:
        """Of PAN and MS: sizes are multiples of what the network wants, the PAN's `ratio` times the MS's."""
        grain = math.lcm(self.network.multiple_of, self.network.ratio)
        batch, rows, cols = Dim("batch"), Dim("rows"), Dim("cols")
        coarse = grain // self.network.ratio
        ms = {0: batch, 2: _times(coarse, rows), 3: _times(coarse, cols)}
        if self.any_bands:
            ms[1] = Dim("bands")
        return {0: batch, 2: grain * rows, 3: grain * cols}, ms

    def statistic_shapes(self, bands: Any) -> tuple[Shapes, ...]:
        """Where statistics grow with the bands they do so by one a band: seen with another number of them."""
        if not self.any_bands:
            return ({},) * len(self.given)
        others = _statistics(self.network, *_images(self.network, 1, TRACED_ROWS, TRACED_COLS, OTHER_BANDS))
        return tuple(
            {
                axis: bands if size == TRACED_BANDS else bands + (size - TRACED_BANDS)
                for axis, (size, other) in enumerate(zip(value.shape, others[name].shape, strict=True))
                if other != size
            }
            for name, value in self.given.items()
        )


def _times(factor: int, size: Any) -> Any:
    return size if factor == 1 else factor * size


def _images(network: Network, batch: int, rows: int, cols: int, bands: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """PAN and MS of a made-up scene in network units: the bands resemble each other, and the PAN."""
    noise = torch.Generator().manual_seed(seed)
    ratio = network.ratio
    common = torch.rand(batch, 1, rows // ratio, cols // ratio, generator=noise)
    ms = (common + torch.rand(batch, bands, rows // ratio, cols // ratio, generator=noise)) / 2
    fine = torch.rand(batch, 1, rows, cols, generator=noise)
    return (ms.mean(1, keepdim=True).repeat_interleave(ratio, 2).repeat_interleave(ratio, 3) + fine) / 2, ms


def _statistics(network: Network, pan: Tensor, ms: Tensor) -> SceneStatistics:
    """All that `network` reads for these images; a `Consistent` one made for another number of bands keeps its gain."""
    if not isinstance(network, Consistent):
        return network.observe(pan, ms)
    gains = network.gains[:, :1].expand(1, ms.shape[1]).contiguous()
    return {**network.network.observe(pan, ms), GAINS: gains}


class _Apply(nn.Module):
    """The network with its scene statistics as inputs, in the order of `names`."""

    def __init__(self, network: Network, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, pan: Tensor, ms: Tensor, *statistics: Tensor) -> Tensor:
        return self.network.fuse(pan, ms, Frozen(dict(zip(self.names, statistics, strict=True))))


class _Observe(nn.Module):
    """From crops of a scene to its statistics, in the order of `names`."""

    def __init__(self, network: Network, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, pan: Tensor, ms: Tensor) -> tuple[Tensor, ...]:
        pooling = Observing()
        self.network.fuse(pan, ms, pooling)
        return tuple(pooling.statistics[name] for name in self.names)


def _file(graphs: _Graphs, spec: ModelSpec, path: Path, precision: str) -> OnnxFile:
    """The file's content, checked as any file that is read."""
    pan, ms = graphs.image_shapes()
    entries = {
        SPEC_KEY: spec.to_json(),
        BANDS_KEY: "0" if graphs.any_bands else str(graphs.bands),
        PRECISION_KEY: precision,
    }
    if graphs.observed:
        names = list(graphs.observed)
        observer = _traced(_Observe(graphs.core, names), graphs.images(), IMAGES, names, {"pan": pan, "ms": ms})
        entries[OBSERVER_KEY] = base64.b64encode(_serialised(observer, {})).decode()
    names = list(graphs.given)
    shapes: dict[str, Any] = {"pan": pan, "ms": ms}
    if names:
        shapes["statistics"] = graphs.statistic_shapes(ms.get(1))
    inputs = (*graphs.images(), *graphs.given.values())
    model = _traced(_Apply(graphs.network, names), inputs, (*IMAGES, *names), [OUTPUT], shapes)
    if precision == MIXED:
        _halve_convolutions(model)
    return OnnxFile.of(_serialised(model, entries), path)


def _traced(
    module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], outputs: Sequence[str], shapes: dict[str, Any]
) -> Any:
    """The ONNX model, an onnx_ir.Model, of `module`."""
    from pansharpen_cli.backends.export_operators import TRANSLATIONS

    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module.eval(), inputs, dynamo=True, optimize=False, external_data=False, verbose=False,
                input_names=list(names), output_names=list(outputs), dynamic_shapes=shapes, opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
            )  # fmt: skip
    except Exception as error:  # the exporter's own, and whatever it trips over in a network
        log.debug("the exporter says: %s", error)
        raise ModelError(f"{_network_of(module)} cannot be expressed in ONNX: {_reason(error)}") from error
    assert program is not None
    _simplify(program.model)
    return program.model


def _network_of(module: nn.Module) -> str:
    return type(module.network).__name__


def _reason(error: Exception) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    return brief(error)


def _simplify(model: Any) -> None:
    """What is constant is computed once, what stands twice stands once; no trace of the sources is left."""
    import onnx_ir.passes.common as passes
    from onnx_ir.passes import Sequential
    from onnxscript.optimizer import fold_constants

    passes.InlinePass()(model)
    fold_constants(model)
    Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
        passes.ClearMetadataAndDocStringPass(),
    )(model)


def _halve_convolutions(model: Any) -> None:
    """Convolutions in half precision, with weights stored so; what is between them stays in single precision, where
    sums of many terms and the scene's radiometry need it."""
    import onnx_ir as ir

    graph = model.graph
    for node in list(graph):
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(index, _halved(ir, graph, node, value))
        (out,) = node.outputs
        users = list(out.uses())
        single = ir.node("Cast", [out], attributes={"to": ir.DataType.FLOAT})
        graph.insert_after(node, single)
        for user, index in users:
            user.replace_input_with(index, single.outputs[0])
        single.outputs[0].dtype, single.outputs[0].shape = ir.DataType.FLOAT, out.shape
        out.dtype = ir.DataType.FLOAT16
        if out in graph.outputs:
            raise ModelError("a network that ends in a convolution cannot be exported in half precision")


def _halved(ir: Any, graph: Any, node: Any, value: Any) -> Any:
    """`value` in half precision: a weight of its own, or a cast in front of `node`."""
    if value.const_value is not None and value.is_initializer():
        name = f"{value.name}.half"
        if name not in graph.initializers:
            array = value.const_value.numpy().astype(np.float16)
            half = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16))
            half.const_value = ir.tensor(array, name=name)
            graph.register_initializer(half)
        return graph.initializers[name]
    cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT16})
    graph.insert_before(node, cast)
    return cast.outputs[0]


def _serialised(model: Any, entries: dict[str, str]) -> bytes:
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
    model.producer_name = "pansharpen"
    model.metadata_props.clear()
    model.metadata_props.update(entries)
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _verify(written: OnnxFile, graphs: _Graphs) -> None:
    """Compare the file with torch at sizes that were not traced. Raises ModelError if it is another network."""
    place = Place("cpu", 0, torch.get_num_threads())
    apply = session(written.content, place)
    observe = session(written.observer, place) if written.observer else None
    for size in TRIED:
        least = math.inf
        for attempt in range(ATTEMPTS):
            least = min(least, _difference(apply, observe, graphs, size, attempt))
            if least <= TOLERANCE[written.precision]:
                break
        else:
            raise ModelError(
                f"the exported {type(graphs.network).__name__} differs from torch by {least:.1e} of the range at "
                f"{size[1]} x {size[2]} pixels; nothing was written"
            )


def _run(graph: Any, names: Sequence[str], feed: dict[str, Any]) -> list[Any]:
    try:
        values: list[Any] = graph.run(names, feed)
    except Exception as error:  # it raises many kinds, none of them documented
        raise ModelError(f"what was exported does not run ({brief(error)}); nothing was written") from error
    return values


def _difference(apply: Any, observe: Any, graphs: _Graphs, size: tuple[int, int, int, int], attempt: int) -> float:
    """Largest difference between the file's numbers and torch's, in parts of their range, statistics included."""
    batch, rows, cols, bands = size
    network = graphs.network
    pan, ms = _images(network, batch, rows, cols, bands if graphs.any_bands else network.bands, seed=attempt)
    statistics = _statistics(network, pan, ms)
    feed = {"pan": pan.numpy(), "ms": ms.numpy()}
    found = 0.0
    if observe is not None:
        names = [output.name for output in observe.get_outputs()]
        found = max(
            _relative(value, statistics[name].numpy())
            for name, value in zip(names, _run(observe, names, feed), strict=True)
        )
    with torch.no_grad():
        hrms = network.fuse(pan, ms, Frozen(statistics)).numpy()
    wanted = {given.name for given in apply.get_inputs()}
    feed |= {name: value.numpy() for name, value in statistics.items() if name in wanted}
    return max(found, _relative(_run(apply, [OUTPUT], feed)[0], hrms))


def _relative(found: Any, truth: Any) -> float:
    return float(np.abs(found - truth).max() / max(np.ptp(truth), np.abs(truth).max()))


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that nobody here uses, and prints what it does."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)
