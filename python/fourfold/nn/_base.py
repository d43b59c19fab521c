"""What the quantized layers share: plain tensors as the state, packed weights to run, calls in every mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from fourfold import _core, _packing, _threads
from fourfold._layers import Options, all_options, extra_repr, layer_name, parameters, quantized_name

Self = TypeVar("Self", bound="QuantizedModule")

_version = Tensor._version.__get__  # type: ignore[attr-defined]
_PLAIN_TYPES = (Tensor, nn.Parameter)

# Their names are bound here because the calls below are counted in tenths of microseconds.
_is_compiling = torch.compiler.is_compiling
_tracing_state = torch._C._get_tracing_state
_dispatch_modes = torch._C._len_torch_dispatch_stack
_functorch_level = torch._C._functorch.maybe_current_level
_has_function_mode = torch._C._is_torch_function_mode_enabled
_default_dtype = torch.get_default_dtype
_num_threads = torch.get_num_threads
float32 = torch.float32

_threads.share_torch_threads()


def is_eager(input: Tensor) -> bool:
    """Whether this is a plain call: nothing compiles, exports, traces, or fakes tensors.

    Only then do the bindings get addresses. In all other cases the same kernels run as custom operators.
    """
    return (
        type(input) in _PLAIN_TYPES
        and not _is_compiling()
        and _tracing_state() is None
        and not _dispatch_modes()
        and _functorch_level() is None
    )


def allocator(like: Tensor) -> Callable[..., Tensor]:
    """Makes float32 tensors on the CPU: torch.empty, where its defaults are these, as that is the fastest."""
    return like.new_empty if _has_function_mode() or _default_dtype() is not float32 else torch.empty


def is_tracing() -> bool:
    """Whether torch.jit.trace runs this call: shapes are tensors then, and what a check finds cannot be recorded."""
    return not _is_compiling() and _tracing_state() is not None


def dtype_name(dtype: Any) -> str:
    """The core's name of a format: "qint8" or "float16", of a torch.dtype or a name.

    Raises ValueError for any other.
    """
    name = str(dtype).removeprefix("torch.")
    name = {"int8": "qint8", "quint8": "qint8", "half": "float16"}.get(name, name)
    if name not in _packing.WEIGHT_DTYPES:
        raise ValueError(f"dtype must be torch.qint8 or torch.float16, got {dtype}")
    return name


class QuantizedModule(nn.Module):
    """A layer whose weights are int8 with a scale a row, or float16, in plain tensors.

    The state dict has them under PyTorch's names: `weight_ih_l0` int8, `weight_ih_l0_scale` float32,
    `bias_ih_l0` float32. The attribute of a weight's name is its float32 values, computed when asked for. A
    weight that another module shares stays the float parameter that it is, and is quantized when it is packed.

    Inference only: no gradient flows. The weights stay on the CPU, and .half(), .to(dtype) leave them alone.
    """

    KIND: ClassVar[str]
    FLOAT_MODULE: ClassVar[type[nn.Module]]
    OPTIONS: ClassVar[tuple[str, ...]]  # attributes of the float module, and of this one, that make the layer

    # What runs the packed weights, the tensors they were made of, and the sum of their versions.
    _packed: tuple[Any, tuple[Tensor, ...], int] | None
    _options: Options
    _dtype: str  # "qint8" or "float16"
    _layer: str  # the options and the dtype, as custom operators take them
    _names: tuple[tuple[str, bool], ...]  # of the parameters, and whether each is a weight

    # ---- Making one ----

    @classmethod
    def from_float(
        cls: type[Self], module: nn.Module, dtype: Any = torch.qint8, *, shared: frozenset[str] = frozenset()
    ) -> Self:
        """The quantized counterpart of a float module, which stays as it is.

        Args:
            module: of the class FLOAT_MODULE.
            dtype: torch.qint8 or torch.float16.
            shared: names of weights that other modules use too: they stay float parameters.

        Raises:
            TypeError: for a module of another class.
            ValueError: for another dtype.
            fourfold.Error: where a weight or bias is not finite.
        """
        if not isinstance(module, cls.FLOAT_MODULE):
            raise TypeError(
                f"{cls.__name__}.from_float: expected a torch.nn.{cls.FLOAT_MODULE.__name__}, "
                f"got {type(module).__name__}"
            )
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._take(module, dtype, shared)
        self.train(module.training)
        return self

    def _take(self, module: nn.Module, dtype: Any, shared: frozenset[str] = frozenset()) -> None:
        """Takes the options of a float module, and quantizes its parameters."""
        self._set_options(self._float_options(module), dtype)
        for parameter in self._parameter_list():
            value = getattr(module, parameter.name)
            if parameter.name in shared:
                self.register_parameter(parameter.name, value)
            elif parameter.is_weight:
                self._set_weight(parameter.name, *_packing.quantize(value, self._dtype, parameter.name))
            else:
                self._buffers[parameter.name] = _packing.plain(value).clone()
        self._finish()

    @classmethod
    def _from_tensors(cls: type[Self], options: Options, dtype: Any, tensors: Mapping[str, Tensor]) -> Self:
        """One of int8 weights with their scales, or float16 weights, as they are. Raises fourfold.Error."""
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._set_options(options, dtype)
        for parameter in self._parameter_list():
            self._buffers[parameter.name] = tensors[parameter.name]
            scale = parameter.name + "_scale"
            if scale in tensors:
                self._buffers[scale] = tensors[scale]
        self._finish()
        self._pack()  # so that what does not fit is said here
        return self.eval()

    def _finish(self) -> None:
        """Called once the parameters are there, and when their format has changed."""
        self._layer = layer_name(self.KIND, self._options, self._dtype)
        self._names = tuple((parameter.name, parameter.is_weight) for parameter in self._parameter_list())

    @classmethod
    def _float_options(cls, module: nn.Module) -> Options:
        """The options that make a float module of this kind."""
        return {name: getattr(module, name) for name in cls.OPTIONS}

    def _set_options(self, options: Options, dtype: Any) -> None:
        self._options = all_options(self.KIND, options)
        for name in self.OPTIONS:
            setattr(self, name, self._options[name])
        self._dtype = dtype_name(dtype)
        self._packed = None

    def _parameter_list(self) -> Any:
        return parameters(self.KIND, self._options)

    def _set_weight(self, name: str, weight: Tensor, scale: Tensor | None) -> None:
        self._buffers[name] = weight
        if scale is not None:
            self._buffers[name + "_scale"] = scale

    def dequantize(self) -> nn.Module:
        """A float module with the values that the quantized weights stand for."""
        module = empty_float_module(self.FLOAT_MODULE, self._options)
        with torch.no_grad():
            for parameter in self._parameter_list():
                getattr(module, parameter.name).copy_(getattr(self, parameter.name))
        return module.train(self.training)

    # ---- Running ----

    def _tensors(self) -> list[Tensor]:
        """The plain tensors, in the order of the core's state dict."""
        found: list[Tensor | None] = []
        for name, is_weight in self._names:
            tensor = self._parameters.get(name)
            if tensor is not None:
                found.append(tensor)
                continue
            found.append(self._buffers[name])
            if is_weight and name + "_scale" in self._buffers:
                found.append(self._buffers[name + "_scale"])
        return cast("list[Tensor]", found)

    def _pack(self) -> tuple[Any, tuple[Tensor, ...], int]:
        tensors = self._tensors()
        handle = _packing.packed(self._layer, tensors)
        counted = tuple(tensor for tensor in tensors if not tensor.is_inference())
        self.__dict__["_packed"] = packed = (handle.forward, counted, sum(map(_version, counted)))
        return packed

    def _kernel(self) -> Any:
        """The core's forward, of weights that are packed anew where the plain tensors were written to."""
        packed = self._packed
        if packed is None or sum(map(_version, packed[1])) != packed[2]:
            packed = self._pack()
        if _num_threads() != _threads.current:
            _threads.follow_torch()
        return packed[0]

    # ---- State ----

    def __getattr__(self, name: str) -> Any:
        # Other code reads `.weight`, its dtype and its values; it must not find integers there.
        buffers = self.__dict__.get("_buffers", {})
        tensor = buffers.get(name)
        if tensor is None or tensor.dtype not in (torch.int8, torch.float16):
            return super().__getattr__(name)
        return _packing.dequantize(tensor, buffers.get(name + "_scale"))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, Tensor):
            self.__dict__["_packed"] = None
        elif name in self.OPTIONS and self._options[name] != value:
            self._options[name] = value  # such as batch_first, which models set afterwards
            self._finish()

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights depend on the machine, and are made again of the plain tensors.
        return {**self.__dict__, "_packed": None}

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for tensors in (self._parameters, self._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = self._applied(fn, tensor)
        self._packed = None
        return self

    def _applied(self, fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Any:
        try:
            with torch.no_grad():
                device = fn(tensor.detach()[:0]).device
        except (AssertionError, RuntimeError) as error:
            raise RuntimeError(f"{self._get_name()} runs on the CPU only: {error}") from error
        if device.type != "cpu":
            raise RuntimeError(
                f"{self._get_name()} runs on the CPU only, and cannot be moved to {device}; "
                "dequantize() gives a float module that can"
            )
        changed = fn(tensor.detach())
        if changed.dtype != tensor.dtype:
            return tensor  # .half(), .to(dtype): scales and biases stay float32
        return nn.Parameter(changed, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else changed

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes int8 weights with their scales, float16 ones, or float32 ones, which are quantized."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        given = {
            key[len(prefix) :]: value
            for key, value in state_dict.items()
            if key.startswith(prefix) and "." not in key[len(prefix) :]
        }
        try:
            found, missing = self._read_state(given)
        except (_core.Error, ValueError, TypeError) as error:
            error_msgs.append(f"{prefix}{error}")
            return
        missing_keys.extend(prefix + name for name in missing)
        if strict:
            unexpected_keys.extend(prefix + name for name in given)
        assign = local_metadata.get("assign_to_params_buffers", False)
        with torch.no_grad():
            for name, tensor in found.items():
                self._store(name, tensor, assign)
        if found:
            self._dtype = "float16" if self._is_half() else "qint8"
            self._finish()
        self._packed = None

    def _is_half(self) -> bool:
        return any(t is not None and t.dtype == torch.float16 for t in self._buffers.values())

    def _store(self, name: str, tensor: Tensor, assign: bool) -> None:
        old: Tensor | None = self._parameters.get(name, self._buffers.get(name))
        if old is not None and not assign and old.dtype == tensor.dtype:
            old.copy_(tensor)  # in place, so that what shares it sees it
        elif name in self._parameters:
            self._parameters[name] = nn.Parameter(tensor, old is not None and old.requires_grad)
        else:
            with torch.inference_mode(False):
                self._buffers[name] = tensor if assign else tensor.clone()
            if name + "_scale" in self._buffers and tensor.dtype == torch.float16:
                del self._buffers[name + "_scale"]

    def _read_state(self, given: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
        """What to store by name, and what is missing; takes it out of `given`. Raises where it does not fit."""
        found: dict[str, Tensor] = {}
        missing: list[str] = []
        formats = set()
        for parameter in self._parameter_list():
            name = parameter.name
            if name not in given:
                missing.append(name)
                continue
            tensor = given.pop(name)
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
            if tuple(tensor.shape) != parameter.shape:
                raise ValueError(
                    f"{name}: size mismatch: copying a param with shape {tensor.shape} from checkpoint, the shape "
                    f"in current model is {torch.Size(parameter.shape)}."
                )
            if not parameter.is_weight:
                if not tensor.is_floating_point():
                    raise ValueError(f"{name}: expected float32, got {tensor.dtype}")
                found[name] = tensor.detach().float()
                continue
            if name in self._parameters:
                if not tensor.is_floating_point():
                    raise ValueError(
                        f"{name}: is shared with another module and stays float, got {tensor.dtype}"
                    )
                found[name] = tensor.detach()
                continue
            scale = given.pop(name + "_scale", None)
            if tensor.dtype == torch.int8:
                if scale is None:
                    missing.append(name + "_scale")
                    continue
                _check_int8(name, tensor, scale)
                found[name], found[name + "_scale"] = tensor.detach(), scale.detach()
            elif tensor.dtype == torch.float16:
                if not bool(tensor.isfinite().all()):
                    raise ValueError(f"{name}: float16 weights must be finite")
                found[name] = tensor.detach()
            elif tensor.is_floating_point():
                found[name], own_scale = _packing.quantize(tensor, self._dtype, name)
                if own_scale is not None:
                    found[name + "_scale"] = own_scale
            else:
                raise ValueError(f"{name}: expected int8, float16 or float32, got {tensor.dtype}")
            formats.add(found[name].dtype)
        if len(formats) > 1:
            raise ValueError(f"int8 and float16 weights cannot be mixed in one {self._get_name()}")
        return found, missing

    # ---- What PyTorch asks of a module ----

    def _get_name(self) -> str:
        return quantized_name(self.KIND)

    def extra_repr(self) -> str:
        return extra_repr(self.KIND, self._options, self._dtype)

    def __prepare_scriptable__(self) -> None:
        raise RuntimeError(
            f"{self._get_name()} cannot be compiled by torch.jit.script: use torch.export, torch.compile, or "
            "torch.jit.trace instead"
        )


def _check_int8(name: str, weight: Tensor, scale: Any) -> None:
    if not isinstance(scale, Tensor) or scale.dtype != float32 or tuple(scale.shape) != (weight.shape[0],):
        raise ValueError(f"{name}_scale: expected float32 of shape [{weight.shape[0]}]")
    smallest = torch.finfo(float32).tiny
    if not bool(((scale >= smallest) & scale.isfinite()).all()):
        raise ValueError(f"{name}_scale: a scale must be positive, finite and not subnormal")
    if bool((weight == -128).any()):
        raise ValueError(f"{name}: is -128 somewhere: quantized weights are from -127 to 127")


def empty_float_module(kind: type[nn.Module], options: Options) -> nn.Module:
    """A module of PyTorch's whose parameters are to be filled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it has to say of its options, it has said before
        return kind(**options, device="meta").to_empty(device="cpu")


def require_tensor(kind: str, name: str, tensor: Any) -> None:
    """Raises TypeError where an argument is no tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{kind}: {name} must be a Tensor, got {type(tensor).__name__}")


def require_cpu(kind: str, name: str, tensor: Tensor) -> None:
    """Raises RuntimeError where a tensor is elsewhere. A compiler's stand-ins say that they are on the CPU."""
    if tensor.device.type != "cpu":
        raise RuntimeError(f"{kind} runs on the CPU only: {name} is on {tensor.device}; use {name}.cpu()")
