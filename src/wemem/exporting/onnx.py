"""ONNX files: written with a check against PyTorch, and read as untrusted input.

A file is read only if it holds all its weights and uses standard operators alone. It runs in
onnxruntime on the CPU, on as many threads as PyTorch uses, within the memory limit of a data set.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Real
from torch import nn

from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.files.input_files import read_bytes, require_file
from wemem.files.memory_limit import memory_limit, require_memory
from wemem.signals import of_log_odds

#: The largest difference of logits between PyTorch and the file, as a share of 1 + the largest
#: logit. float32 resolves 1.2e-7 of a logit, and the two sum in different orders: a few hundred
#: roundings are usual, a thousand are allowed. A real mistake (a layer in training mode, a
#: transposed weight) changes logits by 0.1 and more. No attack can tell logits apart that are this
#: close.
TOLERANCE = 1e-4
#: The largest size of a protocol buffer, in bytes.
FILE_LIMIT = 2**31 - 1
BATCH = 256
#: The types of a file's input, as onnxruntime names them.
INPUTS: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
}  # fmt: skip
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
#: Operators whose output is random, so that no audit could be repeated.
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


@dataclass(frozen=True)
class Parity:
    """The difference between the logits of an ONNX file and those of PyTorch.

    Args:
        records: the number of records that were compared.
        difference: the largest absolute difference.
        allowed: the largest difference that is accepted, :data:`TOLERANCE` times 1 + the largest
            logit.
    """

    records: int
    difference: float
    allowed: float


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model that is known by its logits alone.

    Args:
        name: the name of the file.
        sha256: the SHA-256 hash of the file's bytes, in hexadecimal.
        session: the session of onnxruntime that runs the model.
    """

    name: str
    sha256: str
    session: Any

    @property
    def runtime(self) -> str:
        """The library that computes the logits, with its version."""
        return f"onnxruntime {version('onnxruntime')}"

    @property
    def metadata(self) -> Mapping[str, str]:
        """The entries that the file carries, as :func:`metadata_of` writes them."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def _as_declared(self, features: Real[np.ndarray, "N ..."], dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """The features in the type of the file's input; whole numbers must be whole."""
        if np.issubdtype(dtype, np.integer) and features.dtype.kind == "f" and (features != np.rint(features)).any():
            raise InputError(
                f"expected whole numbers for {self.name}, which takes token ids or codes, got others; give the data "
                "that it was trained on"
            )
        return features.astype(dtype, copy=False)

    def logits(self, features: Real[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        """Compute the logits of records, in batches; one number for each is the log odds of class 1.

        Raises:
            InputError: the file fails on records of this shape, or does not return one row of
                finite logits for each.
        """
        declared = self.session.get_inputs()[0]
        features = self._as_declared(features, INPUTS[declared.type])
        fixed = declared.shape[0] if isinstance(declared.shape[0], int) else None
        size = fixed or BATCH
        batches = []
        for start in range(0, len(features), size):
            batch = features[start : start + size]
            missing = (fixed or len(batch)) - len(batch)
            padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
            try:
                (logits,) = self.session.run(None, {declared.name: np.ascontiguousarray(padded)})
            except Exception as error:  # onnxruntime's errors have no base of their own
                raise InputError(
                    f"{self.name} fails on records of shape {features.shape[1:]}: {_line(error)}; give the data "
                    "set that it was trained on"
                ) from error
            if isinstance(logits, np.ndarray) and logits.shape in ((len(padded),), (len(padded), 1)):
                logits = of_log_odds(logits.reshape(-1, 1))
            if not isinstance(logits, np.ndarray) or logits.ndim != 2 or len(logits) != len(padded):
                raise InputError(f"expected logits of shape (N, C) from {self.name}, got {np.shape(logits)}")
            batches.append(np.asarray(logits[: len(batch)], np.float32))
        result = np.concatenate(batches)
        if not np.isfinite(result).all():
            raise InputError(f"expected finite logits from {self.name}, got NaN or infinity")
        return result


def metadata_of(data: Dataset) -> dict[str, str]:
    """The metadata of an ONNX file: the names of the classes, and the columns of a table with their
    categories, as JSON; only what the data have.
    """
    content: dict[str, object] = {"class_names": list(data.class_names)} if data.class_names else {}
    if data.table is not None:
        content["columns"] = [
            {"name": column.name, **({"categories": column.categories} if column.categories else {})}
            for column in data.table.columns
        ]
    return {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()}


def onnx_bytes(
    module: nn.Module, features: Real[np.ndarray, "N ..."], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, Parity]:  # fmt: skip
    """Export a module as the content of an ONNX file for batches of any size, and check its logits
    in onnxruntime.

    The names of source files and line numbers that the exporter records are removed.

    Args:
        module: the module to export; it is set to evaluation mode.
        features: the records on which the logits are compared, at least 2.
        metadata: entries by name that the file carries.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is not installed, the exporter cannot express
            the model, or the logits of the file differ.
    """
    try:
        import onnxscript  # noqa: F401  the exporter writes with it
    except ImportError as error:
        raise _missing(error) from error
    example = torch.from_numpy(features[:2])
    try:
        with _quiet():
            program = torch.onnx.export(
                _of_rows(module.eval()), (example,), input_names=["x"], output_names=["logits"], dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter, or the model while it is traced, may raise anything
        raise InputError(f"the model cannot be written as ONNX: {_line(error)}") from error
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer,
                 *proto.graph.input, *proto.graph.output):  # fmt: skip
        part.ClearField("metadata_props")
    for key, value in (metadata or {}).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content = bytes(proto.SerializeToString(deterministic=True))
    with torch.inference_mode():
        expected = module(torch.from_numpy(features)).numpy()
    received = _open(content, "the exported model").logits(features)
    difference = float(np.abs(received - expected).max())
    parity = Parity(len(features), difference, TOLERANCE * (1 + float(np.abs(expected).max())))
    if not parity.difference <= parity.allowed:
        raise InputError(
            f"expected logits of the ONNX file within {parity.allowed:.1e} of PyTorch's, got {parity.difference:.1e}; "
            "nothing was written"
        )
    return content, parity


def _of_rows(module: nn.Module) -> nn.Module:
    """The module, within another one if a hook gives it several inputs; the exporter reads the
    arguments of ``forward``, which would be those of the inputs.
    """
    return nn.Sequential(module) if module._forward_pre_hooks else module


def read_onnx(path: Path) -> OnnxModel:
    """Read a model from an untrusted file.

    Raises:
        InputError: onnx or onnxruntime is not installed; the file does not exist, is too large or
            damaged; it needs other files, operators that are not standard, functions, control flow
            or randomness; or the model does not have exactly one input and one output.
    """
    size = require_file(path, "an ONNX file").stat().st_size
    require_memory(4 * size, memory_limit(None), str(path))  # the bytes, the parsed model, and two runtime copies
    if size > FILE_LIMIT:
        raise InputError(f"expected an ONNX file of less than 2 GiB at {path}, got {size} bytes; it is another file")
    content = read_bytes(path, "an ONNX file", limit=size)
    try:
        return _open(content, str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"expected names in UTF-8 in {path}, got other bytes; export the model again") from error


def _open(content: bytes, name: str) -> OnnxModel:
    onnx, runtime = _libraries()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors have no common base here
        raise InputError(f"expected an ONNX file at {name}, got one that cannot be parsed: {_line(error)}") from error
    _require_self_contained(onnx, model, name)
    _limit_memory()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise InputError(f"expected a valid ONNX model in {name}, got: {_line(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for one in (*inputs, *outputs):
        str(one.name).encode()  # names are decoded when they are read, and must be text
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in INPUTS or not inputs[0].shape:
        listed = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise InputError(
            f"expected one input, float32 or whole numbers, and one output in {name}, got inputs {listed[:200]} and "
            f"{len(outputs)} output(s)"
        )
    return OnnxModel(Path(name).name, hashlib.sha256(content).hexdigest(), session)


def _require_self_contained(onnx: ModuleType, model: Any, name: str) -> None:
    if len(model.functions):
        raise InputError(f"expected standard operators in {name}, got a function that the file defines; inline it")
    tensors = [*model.graph.initializer]
    tensors += [part for sparse in model.graph.sparse_initializer for part in (sparse.values, sparse.indices)]
    for node in model.graph.node:
        if node.domain not in STANDARD:
            raise InputError(
                f"expected standard operators in {name}, got {node.domain[:60]!r}.{node.op_type[:60]!r}; custom "
                "operators are not loaded"
            )
        if node.op_type in RANDOM:
            raise InputError(f"expected a deterministic model in {name}, got the random operator {node.op_type!r}")
        for attribute in node.attribute:
            if attribute.HasField("g") or len(attribute.graphs):
                raise InputError(f"expected a model without control flow in {name}, got {node.op_type!r}")
            tensors += [attribute.t, *attribute.tensors]
            sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
            tensors += [part for tensor in sparse for part in (tensor.values, tensor.indices)]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise InputError(
                f"expected all weights inside {name}, got {tensor.name[:60]!r} in another file; save it as one file"
            )


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise _missing(error) from error
    return onnx, onnxruntime


def _missing(error: ImportError) -> InputError:
    return InputError(f"expected onnx, onnxruntime and onnxscript, got not all ({error}); pip install wemem[onnx]")


@cache
def _limit_memory() -> None:
    """Limit the memory of the runtime, once in a process, because a small file can request any
    amount.
    """
    import onnxruntime

    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    defaults = ("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk")
    config = onnxruntime.OrtArenaCfg({"max_mem": memory_limit(None), **dict.fromkeys(defaults, -1)})
    onnxruntime.create_and_register_allocator(info, config)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings about optional libraries and about its own deprecated calls."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
