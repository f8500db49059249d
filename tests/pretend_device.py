"""Pretend to be an accelerator: tensors that hold CPU data, say that they are on `pretend:0`, and obey CUDA's rules.

An operator runs on the data, so that what depends on it works; it raises where CUDA would raise for a mix of devices,
and is counted as a kernel. Where CUDA's host waits for the device, a wait is counted with the line that caused it.

What it does not know: CUDA's numerics and autocast lists, and multi-tensor kernels of optimisers, because torch takes
those paths for plain tensors alone: each parameter is counted. A non-blocking copy counts as no wait.

Autograd takes the number of devices at its first backward pass, so register() has to come before: in a process of its
own, for which `process()` is an executor.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
aten = torch.ops.aten

WAITS = {
    "aten::_local_scalar_dense": "item",
    "aten::is_nonzero": "item",
    "aten::equal": "equal",
    "aten::nonzero": "nonzero",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::unique_consecutive": "unique",
    "aten::bincount": "bincount",
    "aten::_linalg_check_errors": "error check",
    "torchvision::nms": "nms",
    "detectron2::nms_rotated": "nms",
}
"""Operators whose output's size, or whose result, the host has to read."""
NO_KERNELS = {
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
        *("_unsafe_view", "_reshape_alias", "is_same_size", "_local_scalar_dense", "_linalg_check_errors"),
    )
}
"""Operators that launch no kernel, beside those that return a view."""
NO_SCALARS = {"mm", "bmm", "addmm", "cat", "stack", "convolution", "embedding", "gather", "scatter", "index_select"}
"""Operators in which CUDA refuses a CPU tensor without dimensions, too."""
LIBRARIES = ("/torch/", "/lightning_fabric/", "/contextlib.py", __file__)
"""Files whose lines are not the cause of what they do."""


class Mismatch(RuntimeError):
    """Report tensors of two devices in one operator."""


def register() -> None:
    """Make the device known to torch, once a process and before its first backward pass."""
    torch.set_num_threads(1)
    module = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,  # random numbers are the CPU's, whose generator is seeded anyway
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16, torch.float32],
    )
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)


def process() -> ProcessPoolExecutor:
    """Return an executor of one process that knows the device; it runs functions of a module."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=register)


def pretend_fabric(**options: Any) -> Fabric:
    """Return a launched Fabric on the device."""
    fabric = Fabric(accelerator="cpu", devices=1, **options)
    fabric.launch()
    fabric._strategy._root_device = torch.device(NAME, 0)  # type: ignore[attr-defined]
    fabric._accelerator.setup_device = lambda device: None  # type: ignore[method-assign]
    return fabric


class PretendTensor(Tensor):
    """Hold a CPU tensor and say that it is on the device."""

    data_on_cpu: Tensor

    @staticmethod
    def __new__(cls, data: Tensor) -> PretendTensor:
        wrapper: PretendTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            layout=data.layout,
            device=torch.device(NAME, 0),
        )
        wrapper.data_on_cpu = data
        return wrapper

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Serialise as torch.load(map_location="cpu") gives a tensor of a GPU back."""
        return self.data_on_cpu.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied: Tensor = PretendTensor(self.data_on_cpu.detach().clone())
            learns = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(copied, self.requires_grad) if learns else copied
        copy: Tensor = memo[id(self)]
        return copy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator outside of the modes of `pretend`: those of a backward pass, in autograd's own thread."""
        return (Recorder.active or Recorder()).run(func, args, kwargs or {})


class Recorder(TorchDispatchMode):
    """Run operators and count what a GPU would do for them.

    waits: for each (kind, line) how often the host waited; a line is FILE:NUMBER FUNCTION, the innermost of a file that
    is neither torch's nor Fabric's | kernels: operators by name, without views.
    """

    active: Recorder | None = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.kernels: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget what was counted."""
        self.waits.clear()
        self.kernels.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operator on the CPU, and return tensors of the device that CUDA would compute on."""
        device = kwargs.get("device")
        plain = dict(kwargs) | ({"device": torch.device("cpu")} if device is not None else {})
        tensors: list[Tensor] = []
        _map((args, *kwargs.values()), tensors.append)
        here = any(isinstance(tensor, PretendTensor) for tensor in tensors)
        if func is aten._to_copy.default or func is aten.copy_.default:
            there = isinstance(args[0], PretendTensor) if device is None else torch.device(device).type == NAME
            source = args[1] if func is aten.copy_.default else args[0]
            self._count_copy(func, source, there, kwargs.get("non_blocking", False) or args[2:3] == (True,))
            return _call(func, args, plain, there)
        if not here or device is not None:  # a factory, of the device that is asked for
            there = here if device is None else torch.device(device).type == NAME
            self._count(func, there)
            return _call(func, args, plain, there)
        self._check_devices(func, args, tensors)
        name = func._schema.name
        if name in WAITS or (name == "aten::repeat_interleave" and kwargs.get("output_size") is None):
            self._wait(WAITS.get(name, "repeat_interleave"))
        self._count(func, True)
        return _call(func, args, plain, True)

    def _count_copy(self, func: Any, source: Tensor, there: bool, non_blocking: bool) -> None:
        if isinstance(source, PretendTensor) == there:
            self._count(func, there)
        elif not non_blocking:
            self._wait("to the device" if there else "to the host")

    def _check_devices(self, func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        """Raise Mismatch where CUDA would; of indices, those of the CPU are copied and boolean ones are counted."""
        name = func._schema.name.removeprefix("aten::")
        if name in ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"):
            indices = [index for index in args[1] if index is not None]
            for index in indices:
                if not isinstance(index, PretendTensor):
                    self._wait("to the device")
            boolean = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
            fills = len(args) > 2 and len(indices) == 1 and args[2].numel() == 1
            if boolean and not fills:
                self._wait("nonzero")
            tensors = [args[0], *(args[2:3] if len(args) > 2 and args[2].dim() else ())]
        strangers = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor)]
        for tensor in strangers:
            if tensor.dim() or name in NO_SCALARS:
                raise Mismatch(f"{name}: a CPU tensor of shape {tuple(tensor.shape)} meets tensors of the device")

    def _count(self, func: Any, there: bool) -> None:
        views = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        if there and not views and func._schema.name not in NO_KERNELS:
            self.kernels[func._schema.name] += 1

    def _wait(self, kind: str) -> None:
        self.waits[kind, _line()] += 1

    def __enter__(self) -> Recorder:
        Recorder.active = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        Recorder.active = None
        super().__exit__(*error)


class _BelowDispatch(TorchFunctionMode):
    """Do in the open, as CUDA does it, what torch would do with the data of a tensor below all modes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, first = dict(kwargs or {}), args[0] if args else None
        here = isinstance(first, PretendTensor)
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            device = kwargs.pop("device", first.device if here else None)
            made = first if isinstance(first, Tensor) else func(*args, **kwargs)
            return made if device is None else made.to(device=device, dtype=kwargs.get("dtype") or made.dtype)
        if func is Tensor.new_tensor and here:
            made = torch.tensor(args[1], dtype=kwargs.get("dtype") or first.dtype)
            return made.to(kwargs.get("device", first.device))
        if func is Tensor.tolist and here:
            return first.detach().to("cpu").tolist()
        if func in (Tensor.numpy, Tensor.__array__) and here:
            raise TypeError(f"cannot convert a tensor of {NAME}:0 to NumPy; copy it to the CPU first")
        if func is Tensor.__getitem__ and here:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(list(i)).to(first.device) if isinstance(i, (list, range)) else i for i in index)
            return func(first, index)
        if func is Tensor.__setitem__ and here and not isinstance(args[2], Tensor):
            return func(first, args[1], torch.tensor(args[2], dtype=first.dtype))
        return func(*args, **kwargs)


@contextmanager
def pretend() -> Iterator[Recorder]:
    """Enforce the rules of the device, and count what it does."""
    with _BelowDispatch(), Recorder() as recorder:
        yield recorder


def _call(func: Any, args: Any, kwargs: Any, there: bool) -> Any:
    """Call an operator with the data of tensors, and wrap what it returns; what it wrote to is returned as it is."""
    written: dict[int, PretendTensor] = {}

    def data_of(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, PretendTensor):
            return tensor
        written[id(tensor.data_on_cpu)] = tensor
        return tensor.data_on_cpu

    def wrapped(tensor: Tensor) -> Tensor:
        known = written.get(id(tensor))
        if known is not None and known.shape != tensor.shape:
            raise NotImplementedError(f"{func}: a wrapper cannot follow a change of its shape in place")
        return known if known is not None else PretendTensor(tensor)

    output = func(*_map(args, data_of), **{name: _map(value, data_of) for name, value in kwargs.items()})
    return _map(output, wrapped) if there else output


def _map(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Change the tensors of an operator's arguments or results; torch's own walk through them takes twice as long."""
    if isinstance(value, Tensor):
        return change(value)
    return type(value)(_map(part, change) for part in value) if isinstance(value, (list, tuple)) else value


def _line() -> str:
    """Return the line that the operator comes from; in a backward pass there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not any(part in file for part in LIBRARIES):
            _, root, path = file.rpartition("/pais_bench/")
            short = root[1:] + path if root else file.rpartition("/site-packages/")[2]
            return f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward"
