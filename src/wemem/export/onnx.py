"""ONNX files: written with a check against PyTorch, and read with distrust.

Files are read that hold everything themselves and compute with standard operators alone; they run in onnxruntime on the
CPU, on as many threads as PyTorch uses, within the memory that a data set may take.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator
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

from wemem.errors import InputError
from wemem.files.input_files import read_bytes, require_file
from wemem.files.memory_limit import memory_limit, require_memory

#: Largest difference of logits between PyTorch and the file, by 1 + the largest logit. float32 resolves 1.2e-7 of a
#: logit, and the two sum in different orders: a few hundred roundings are usual, a thousand allowed. What is wrong (a
#: layer in training mode, a transposed weight) is off by tenths. No attack can tell logits that are this close.
TOLERANCE = 1e-4
#: A protocol buffer cannot be larger.
FILE_LIMIT = 2**31 - 1
BATCH = 256
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
#: Operators whose output is drawn anew each time, which no audit could repeat.
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


@dataclass(frozen=True)
class Parity:
    """The distance of the logits of an ONNX file from PyTorch's.

    Args:
        records: number of records that were compared.
        difference: the largest absolute difference.
        allowed: :data:`TOLERANCE` times 1 + the largest logit.
    """

    records: int
    difference: float
    allowed: float


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model that is known by its answers alone.

    Args:
        name: name of the file.
        sha256: SHA-256 of the file's bytes, in hexadecimal.
        session: session of onnxruntime.
    """

    name: str
    sha256: str
    session: Any

    @property
    def runtime(self) -> str:
        """The library that computes the answers, with its version."""
        return f"onnxruntime {version('onnxruntime')}"

    def logits(self, features: Real[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        """Answers to records.

        Raises:
            InputError: the file does not answer records of this shape, or not with one row of finite logits each.
        """
        given = self.session.get_inputs()[0]
        fixed = given.shape[0] if isinstance(given.shape[0], int) else None
        size = fixed or BATCH
        answers = []
        for start in range(0, len(features), size):
            batch = features[start : start + size]
            missing = (fixed or len(batch)) - len(batch)
            padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
            try:
                (logits,) = self.session.run(None, {given.name: np.ascontiguousarray(padded)})
            except Exception as error:  # onnxruntime's errors have no base of their own
                raise InputError(
                    f"{self.name} fails on records of shape {features.shape[1:]}: {_line(error)}; give the data "
                    "set that it was trained on"
                ) from error
            if not isinstance(logits, np.ndarray) or logits.ndim != 2 or len(logits) != len(padded):
                raise InputError(f"expected logits of shape (N, C) from {self.name}, got {np.shape(logits)}")
            answers.append(np.asarray(logits[: len(batch)], np.float32))
        found = np.concatenate(answers)
        if not np.isfinite(found).all():
            raise InputError(f"expected finite logits from {self.name}, got NaN or infinity")
        return found


def onnx_bytes(module: nn.Module, features: Real[np.ndarray, "N ..."]) -> tuple[bytes, Parity]:
    """A module as the content of an ONNX file for batches of any size, checked against it in onnxruntime.

    Names of files and lines that the exporter notes down are left out.

    Args:
        module: in evaluation mode.
        features: records on which the two are compared, at least 2.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is not installed, the exporter cannot express the model, or the
            file answers otherwise.
    """
    try:
        import onnxscript  # noqa: F401  the exporter writes with it
    except ImportError as error:
        raise _missing(error) from error
    example = torch.from_numpy(features[:2])
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(), (example,), input_names=["x"], output_names=["logits"], dynamo=True, external_data=False,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), verbose=False,
            )  # fmt: skip
    except Exception as error:  # whatever the exporter, or the model under its tracing, raises
        raise InputError(f"the model cannot be written as ONNX: {_line(error)}") from error
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer,
                 *proto.graph.input, *proto.graph.output):  # fmt: skip
        part.ClearField("metadata_props")
    content = bytes(proto.SerializeToString(deterministic=True))
    with torch.inference_mode():
        expected = module(torch.from_numpy(features)).numpy()
    answers = _open(content, "the exported model").logits(features)
    difference = float(np.abs(answers - expected).max())
    parity = Parity(len(features), difference, TOLERANCE * (1 + float(np.abs(expected).max())))
    if not parity.difference <= parity.allowed:
        raise InputError(
            f"expected the ONNX file to answer within {parity.allowed:.1e} of PyTorch, got {parity.difference:.1e}; "
            "nothing was written"
        )
    return content, parity


def read_onnx(path: Path) -> OnnxModel:
    """A model from an untrusted file.

    Raises:
        InputError: onnx or onnxruntime is not installed; no such file, one that is too large, damaged, or that needs
            other files, operators that are not standard, functions, control flow or randomness; or a model with other
            than one input and one output.
    """
    size = require_file(path, "an ONNX file").stat().st_size
    require_memory(4 * size, memory_limit(None), str(path))  # bytes, parsed, and the runtime's own, twice
    if size > FILE_LIMIT:
        raise InputError(f"expected an ONNX file of less than 2 GiB at {path}, got {size} bytes; it is another file")
    content = read_bytes(path, "an ONNX file", limit=size)
    return _open(content, str(path))


def _open(content: bytes, name: str) -> OnnxModel:
    onnx, runtime = _libraries()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own
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
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)" or not inputs[0].shape:
        listed = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise InputError(
            f"expected one float32 input and one output in {name}, got inputs {listed[:200]} and "
            f"{len(outputs)} output(s)"
        )
    return OnnxModel(Path(name).name, hashlib.sha256(content).hexdigest(), session)


def _require_self_contained(onnx: ModuleType, model: Any, name: str) -> None:
    if len(model.functions):
        raise InputError(f"expected standard operators in {name}, got a function of its own; inline it")
    tensors = [*model.graph.initializer]
    tensors += [part for sparse in model.graph.sparse_initializer for part in (sparse.values, sparse.indices)]
    for node in model.graph.node:
        if node.domain not in STANDARD:
            raise InputError(
                f"expected standard operators in {name}, got {node.domain[:60]!r}.{node.op_type[:60]!r}; nothing of "
                "anyone's own is loaded"
            )
        if node.op_type in RANDOM:
            raise InputError(f"expected a model that answers alike each time in {name}, got {node.op_type!r}")
        for attribute in node.attribute:
            if attribute.HasField("g") or len(attribute.graphs):
                raise InputError(f"expected a model without control flow in {name}, got {node.op_type!r}")
            tensors += [attribute.t, *attribute.tensors]
            sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
            tensors += [part for own in sparse for part in (own.values, own.indices)]
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
    """Give the runtime one pool of memory of a limited size, once in a process: a small file may ask for any amount."""
    import onnxruntime

    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    defaults = ("arena_extend_strategy", "initial_chunk_size_bytes", "max_dead_bytes_per_chunk")
    config = onnxruntime.OrtArenaCfg({"max_mem": memory_limit(None), **dict.fromkeys(defaults, -1)})
    onnxruntime.create_and_register_allocator(info, config)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of libraries that are not there and of its own deprecated calls."""
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
