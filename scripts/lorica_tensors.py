"""The tensors of a model as liblorica serves them (lorica_architecture_* of lorica.h): names in GGUF and Hugging Face, shapes,
order of the rows. For the scripts that compare with other programs; there is no second table.

    tensors = lorica_tensors.of_model("model.gguf")
    tensors = lorica_tensors.of_metadata({"general.architecture": "llama", "llama.block_count": 2, …})
    tensors["blk.0.attn_q.weight"].hf_name, tensors.by_hf_name["model.layers.0.self_attn.q_proj.weight"].name

Needs the target `lorica`, built; where that is in the Debian 13 root: scripts/devroot.sh -- PYTHON SCRIPT.
"""
import ctypes
from ctypes import POINTER, byref, c_bool, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np

LIBRARY = Path(__file__).resolve().parent.parent / "native/build/liblorica.so"


class _Tensor(ctypes.Structure):
    """lorica_architecture_tensor"""
    _fields_ = [("struct_size", c_size_t), ("kind", c_int), ("layer", c_int32), ("name", c_char_p), ("hf_name", c_char_p),
                ("rows", c_int64), ("cols", c_int64), ("row_order", POINTER(c_int64)), ("conv1d", c_bool),
                ("is_optional", c_bool)]


class Tensor:
    """Attributes of lorica_architecture_tensor; row_order is an array or None."""

    def __init__(self, told):
        self.is_linear, self.layer = told.kind == 1, told.layer  # LORICA_TENSOR_LINEAR
        self.is_of_classifier = told.kind == 5  # LORICA_TENSOR_CLASSIFIER
        self.name, self.hf_name = told.name.decode(), told.hf_name.decode()
        self.rows, self.cols, self.conv1d, self.is_optional = told.rows, told.cols, told.conv1d, told.is_optional
        self.row_order = np.array(told.row_order[:told.rows]) if told.row_order else None

    def rows_in_gguf(self, values):
        """What has an element or a row per row of this tensor (itself, B, a bias), in GGUF's order."""
        return values if self.row_order is None else np.ascontiguousarray(values[self.row_order])

    def rows_in_huggingface(self, values):
        return values if self.row_order is None else np.ascontiguousarray(values[np.argsort(self.row_order)])

    def in_gguf(self, values):
        """The tensor itself, as GGUF has it, of what Hugging Face has."""
        return self.rows_in_gguf(np.ascontiguousarray(values.T) if self.conv1d and values.ndim == 2 else values)


class Tensors(dict):
    """By their names in GGUF, in the order of the computation."""

    @property
    def by_hf_name(self):
        return {tensor.hf_name: tensor for tensor in self.values()}


_loaded = []


def _library():
    if not _loaded:
        library = ctypes.CDLL(str(LIBRARY))
        library.lorica_last_error.restype = c_char_p
        for name, arguments in {
                "gguf_writer_create": [c_void_p], "gguf_writer_set_u32": [c_void_p, c_char_p, c_uint32],
                "gguf_writer_set_f32": [c_void_p, c_char_p, c_float], "gguf_writer_set_bool": [c_void_p, c_char_p, c_bool],
                "gguf_writer_set_string": [c_void_p, c_char_p, c_char_p],
                "gguf_writer_set_bools": [c_void_p, c_char_p, POINTER(c_bool), c_int64],
                "gguf_writer_set_strings": [c_void_p, c_char_p, c_char_p, POINTER(c_int64), c_int64],
                "gguf_writer_free": [c_void_p], "model_load": [c_char_p, c_void_p, c_void_p], "model_free": [c_void_p],
                "architecture_of_metadata": [c_void_p, c_void_p], "architecture_of_model": [c_void_p, c_void_p],
                "architecture_get_tensor": [c_void_p, c_int32, c_void_p], "architecture_n_tensors": [c_void_p],
                "architecture_free": [c_void_p]}.items():
            getattr(library, "lorica_" + name).argtypes = arguments
        _loaded.append(library)
    return _loaded[0]


def _call(name, *arguments):
    if getattr(_library(), "lorica_" + name)(*arguments) != 0:
        raise ValueError(_library().lorica_last_error().decode())


def _read(of, source):
    table = c_void_p()
    _call(of, source, byref(table))
    try:
        tensors = Tensors()
        for i in range(_library().lorica_architecture_n_tensors(table)):
            told = _Tensor(struct_size=ctypes.sizeof(_Tensor))
            _call("architecture_get_tensor", table, i, byref(told))
            tensors[told.name.decode()] = Tensor(told)
        return tensors
    finally:
        _library().lorica_architecture_free(table)


def of_model(path):
    """Of a model's file."""
    model = c_void_p()
    _call("model_load", str(path).encode(), None, byref(model))
    try:
        return _read("architecture_of_model", model)
    finally:
        _library().lorica_model_free(model)


def of_metadata(metadata, present=()):
    """Of the model that these keys describe. `present` names tensors of the first layer that only some models have."""
    writer = c_void_p()
    _call("gguf_writer_create", byref(writer))
    try:
        for key, value in metadata.items():
            kind = {bool: "bool", int: "u32", float: "f32", str: "string"}.get(type(value))
            if kind:
                _call("gguf_writer_set_" + kind, writer, key.encode(), value.encode() if kind == "string" else value)
            elif all(isinstance(element, bool) for element in value):
                _call("gguf_writer_set_bools", writer, key.encode(), (c_bool * len(value))(*value), len(value))
            else:
                raise TypeError(f"{key}: {value!r}")
        if present:
            names = [name.encode() for name in present]
            offsets = np.cumsum([0] + [len(name) for name in names]).tolist()
            _call("gguf_writer_set_strings", writer, b"lorica.tensors", b"".join(names), (c_int64 * len(offsets))(*offsets),
                  len(names))
        return _read("architecture_of_metadata", writer)
    finally:
        _library().lorica_gguf_writer_free(writer)
