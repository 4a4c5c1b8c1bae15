"""Fingerprints: is this the h1, is this the data item, that we saw before?

`fingerprint` names a model by its content and goes into checkpoints and stored outputs, so it is a
cryptographic hash. `fingerprint_data` is computed for every item that a data loader reads, so it is fast.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bc_core.reference._callable_fingerprint import fingerprint_of_callable
from bc_lightning.batches._attached import Rows

_CHUNK_BYTES = 64 * 1024 * 1024
# The attribute under which a wrapper keeps the module it wraps.
_COMPILED = "_orig_mod"
_PARALLEL = "module"


def fingerprint(obj: Any) -> str:
    """Name a model by its content.

    For an ``nn.Module`` the hash runs over the names and type names of its submodules and over name, type,
    shape and bytes of every tensor in its state dict. It does not depend on the device, on train or eval
    mode, on ``requires_grad``, or on being wrapped by ``torch.compile``, ``DistributedDataParallel`` or
    ``DataParallel``. It changes when any weight or buffer changes, be it in one bit or in its dtype. Settings
    that live neither in the state dict nor in a type name, such as the slope of a leaky ReLU, are not seen.

    For a callable that is no module it is the callable's own ``fingerprint`` (a string, or a method that
    returns one) if there is one, else its qualified name and a hash of its content: its code, its defaults, and what
    it closes over or reads of globals, be it numbers, arrays, tensors, modules or functions. Give a callable that
    reads weights from elsewhere a ``fingerprint``. A bound method of a module is named by that module.

    Args:
        obj: A module or a callable.

    Returns:
        ``"sha256:..."`` for a module, ``"callable:module.qualname#..."`` for a callable without a name of its own.

    Raises:
        ValueError: A parameter has no values yet (a lazy module before its first batch, or the meta device).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
        >>> before = fingerprint(model)
        >>> before == fingerprint(model.eval().requires_grad_(False))
        True
        >>> _ = model[0].bias.data.add_(1e-3)
        >>> before == fingerprint(model)
        False
    """
    if isinstance(obj, nn.Module):
        return f"sha256:{_hash_module(obj)}"
    return fingerprint_of_callable(obj, _read)


def _read(value: Any) -> str | None:
    """What is read of modules and tensors that a callable uses."""
    if isinstance(value, nn.Module):
        return f"sha256:{_hash_module(value)}"
    if isinstance(value, Tensor):
        digest = hashlib.sha256()
        _feed_weights(digest, "tensor", value)
        return f"tensor:{digest.hexdigest()}"
    return str(value) if isinstance(value, (torch.dtype, torch.device)) else None


def fingerprint_data(item: Any) -> int:
    """Hash the content of one data-set item to 64 bits.

    Half of the bits are a checksum of the structure (types, shapes, numbers, strings), half one of the bytes
    of tensors, arrays and images, so another item passes for this one about once in four thousand million
    times. That is enough against mistakes, and several times faster than a cryptographic hash; it is no
    protection against somebody who wants two items to look the same.

    Args:
        item: Tensors, numpy arrays, numbers, strings, bytes, ``None``, PIL images, dataclasses and anything
            that can be pickled, nested in tuples, lists and mappings. The order of a mapping's keys does not
            matter; the type, shape and dtype of every leaf does.

    Returns:
        An unsigned 64-bit integer; equal items have equal hashes in every process.

    Raises:
        TypeError: A leaf can be neither read nor pickled.

    Example:
        >>> import torch
        >>> x = torch.arange(6.0)
        >>> fingerprint_data((x, 3)) == fingerprint_data((x.clone(), 3))
        True
        >>> fingerprint_data((x, 3)) == fingerprint_data((x + 1e-6, 3))
        False
    """
    structure: list[bytes] = []
    bulk: list[Any] = []
    _take_apart(item, structure, bulk)
    content = 0
    for buffer in bulk:
        content = zlib.crc32(buffer, content)
    return zlib.crc32(b"".join(structure)) << 32 | content


def _hash_module(module: nn.Module) -> str:
    digest = hashlib.sha256()
    wrappers = {}
    described = []
    for path, child in module.named_modules(remove_duplicate=False):
        attribute = _wrapped_attribute(child)
        if attribute is not None:
            wrappers[path] = attribute
        else:
            described.append((path, type(child).__name__))
    for path, kind in sorted((_unwrapped_name(path, wrappers), kind) for path, kind in described):
        _feed(digest, ("module", path, kind))
    state = {_unwrapped_name(name, wrappers): value for name, value in module.state_dict().items()}
    for name in sorted(state):
        value = state[name]
        _feed(digest, ("state", name))
        if isinstance(value, Tensor):
            _feed_weights(digest, name, value)
        else:
            # Extra state may be any object. What cannot be read must not stop h1 from being used.
            try:
                _feed(digest, value)
            except TypeError:
                _feed(digest, type(value).__name__)
    return digest.hexdigest()


def _wrapped_attribute(module: nn.Module) -> str | None:
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _PARALLEL
    # torch.compile's wrapper has no public type.
    return _COMPILED if _COMPILED in module._modules else None


def _unwrapped_name(name: str, wrappers: dict[str, str]) -> str:
    """Drop from a dotted name the attributes that lead from a wrapper to what it wraps."""
    if not wrappers:
        return name
    kept: list[str] = []
    path: list[str] = []
    for part in name.split(".") if name else []:
        if wrappers.get(".".join(path)) != part:
            kept.append(part)
        path.append(part)
    return ".".join(kept)


def _feed_weights(digest: Any, name: str, tensor: Tensor) -> None:
    if is_lazy(tensor) or tensor.device.type == "meta":
        raise ValueError(
            f"h1's {name!r} has no values yet, so it cannot be compared; "
            "load its weights, and run one batch through a lazy module, before using it as h1"
        )
    tensor = tensor.detach()
    _feed(digest, (str(tensor.dtype), *tensor.shape))
    if tensor.is_quantized:
        _feed(digest, repr(tensor.qscheme()))
        tensor = tensor.dequantize()
    elif tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    elif type(tensor) is not Tensor and hasattr(tensor, "__tensor_flatten__"):
        # A subclass that packs other tensors, as quantisation libraries make.
        inner, _ = tensor.__tensor_flatten__()
        for part in inner:
            _feed_weights(digest, f"{name}.{part}", getattr(tensor, part))
        return
    flat = tensor.resolve_conj().resolve_neg().reshape(-1)
    # Piece by piece, so that hashing a model on a GPU never needs a second copy of a large weight here.
    step = max(1, _CHUNK_BYTES // max(1, flat.element_size()))
    for start in range(0, flat.numel(), step):
        # As bytes, since numpy knows no bfloat16.
        digest.update(flat[start : start + step].cpu().view(torch.uint8).numpy().data)


def _feed(digest: Any, item: Any) -> None:
    structure: list[bytes] = []
    bulk: list[Any] = []
    _take_apart(item, structure, bulk)
    digest.update(b"".join(structure))
    for buffer in bulk:
        digest.update(buffer)


def _take_apart(item: Any, structure: list[bytes], bulk: list[Any]) -> None:
    """Split an item into its structure and the buffers of its tensors and arrays.

    No two different items give the same pair: everything of variable length is preceded by its length or
    shape, and the structure says how the buffers are to be read.
    """
    if isinstance(item, Tensor):
        structure.append(_tensor_header(item.dtype, item.shape))
        try:
            array = item.numpy()
        except (RuntimeError, TypeError):
            array = _tensor_bytes(item)
        bulk.append(array if array.flags.c_contiguous else np.ascontiguousarray(array))
    elif isinstance(item, str):
        text = item.encode("utf-8", "surrogatepass")
        structure.append(b"s%d;" % len(text))
        structure.append(text)
    elif item is None or isinstance(item, (bool, int)):
        structure.append(f"i{item!r};".encode())
    elif isinstance(item, (tuple, list)):
        structure.append(b"l%d;" % len(item))
        for member in item:
            _take_apart(member, structure, bulk)
    elif isinstance(item, float):
        structure.append(b"f" + struct.pack("<d", item))
    elif isinstance(item, Mapping):
        structure.append(b"m%d;" % len(item))
        for key in sorted(item, key=repr):
            _take_apart(key, structure, bulk)
            _take_apart(item[key], structure, bulk)
    elif isinstance(item, (bytes, bytearray, memoryview)):
        structure.append(b"b%d;" % len(item))
        bulk.append(item)
    elif isinstance(item, (np.ndarray, np.generic)) and not item.dtype.hasobject:
        structure.append(f"{type(item).__name__[:1]}{item.dtype.str}{item.shape};".encode())
        # Dates cannot be exported as a buffer.
        array = np.asarray(item, order="C")
        bulk.append(array.view(np.int64) if array.dtype.kind in "mM" else array)
    else:
        _take_apart(_rare(item), structure, bulk)


@functools.lru_cache(maxsize=256)
def _tensor_header(dtype: torch.dtype, shape: torch.Size) -> bytes:
    return f"t{dtype}{tuple(shape)};".encode()


def _tensor_bytes(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Read a tensor that numpy cannot: with gradients, elsewhere than on the CPU, bfloat16, sparse, quantised."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    elif tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    array: np.ndarray[Any, Any] = tensor.cpu().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8).numpy()
    return array


def _rare(item: Any) -> tuple[Any, ...]:
    """Say the less usual kinds of item in terms of the usual ones."""
    if isinstance(item, Rows):
        # A pickle of it would hold where the rows lie, and its tensor's storage.
        return ("rows", item.fingerprint, item.tensor)
    if isinstance(item, np.ndarray):
        return ("array of objects", item.shape, item.tolist())
    if callable(getattr(item, "tobytes", None)) and hasattr(item, "mode") and hasattr(item, "size"):
        # A PIL image, told by what it has: PIL need not be installed. Pickling one would add its file name.
        palette = getattr(item, "palette", None)
        return ("image", item.mode, item.size, item.tobytes(), palette and palette.tobytes())
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
        return ("dataclass", type(item).__name__, fields)
    try:
        return ("pickled", type(item).__name__, pickle.dumps(item, protocol=4))
    except Exception as error:
        raise TypeError(
            f"cannot hash a value of type {type(item).__name__}: expected tensors, arrays, numbers, strings, "
            "images, or something that can be pickled"
        ) from error
