"""fourfold and its peers behind one face: a function makes, of a PyTorch module and a row, what runs it once.

Each is called as its users call it from Python: with PyTorch's tensors or with NumPy arrays, results as the same.
None stands for "does not have this". What a peer cannot do is never replaced by something slower of ours.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rows import Row

Run = Callable[[], object]  # runs once, and returns the output


def make_module(row: Row) -> torch.nn.Module:
    torch.manual_seed(0)
    if row.kind == "Linear":
        return torch.nn.Linear(row.input_size, row.hidden_size).eval()
    kind = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}[row.kind]
    return kind(
        row.input_size, row.hidden_size, num_layers=row.num_layers, bidirectional=row.bidirectional
    ).eval()


def make_input(row: Row) -> torch.Tensor:
    torch.manual_seed(1)
    if row.kind == "Linear":
        return torch.randn(row.batch, row.input_size)
    return torch.randn(row.steps, row.batch, row.input_size)


def _torch_run(module: torch.nn.Module, row: Row, x: torch.Tensor) -> Run:
    return (lambda: module(x)) if row.kind == "Linear" else (lambda: module(x)[0])


def torch_float(module, row, x, threads):
    return _torch_run(module, row, x)


def torch_ao(module, row, x, threads):
    holder = torch.nn.Sequential(module)  # torch.ao leaves a module alone that is not inside another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(holder), {torch.nn.LSTM, torch.nn.GRU, torch.nn.Linear}, dtype=torch.qint8
        )
    return _torch_run(quantized[0], row, x)


def fourfold_int8(module, row, x, threads):
    import fourfold

    return _torch_run(fourfold.quantize_dynamic(module), row, x)


def fourfold_float(module, row, x, threads):
    """The float32 weights of the same module on fourfold's own engine, called with NumPy arrays."""
    import fourfold

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.safetensors"
        fourfold.save(module, path)
        model = fourfold.load(path, backend="numpy")
    array = x.numpy()
    return (lambda: model(array)) if row.kind == "Linear" else (lambda: model(array)[0])


# ---- ONNX ----


def _onnx_model(module: torch.nn.Module, row: Row):
    """The module as ONNX's own operator, as exporters write it."""
    from onnx import TensorProto, helper, numpy_helper

    initializers, nodes = [], []

    def constant(name, array):
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    state = {name: value.numpy() for name, value in module.state_dict().items()}
    if row.kind == "Linear":
        nodes.append(helper.make_node("MatMul", ["x", constant("w", state["weight"].T)], ["xw"]))
        nodes.append(helper.make_node("Add", ["xw", constant("b", state["bias"])], ["y"]))
        shape = [row.batch, row.input_size], [row.batch, row.hidden_size]
    else:
        h, directions = row.hidden_size, 2 if row.bidirectional else 1
        # PyTorch's gates are i f g o and r z n; ONNX's are i o f c and z r h.
        order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}[row.kind]

        def reordered(array):
            return np.concatenate([array[g * h : (g + 1) * h] for g in order])

        x = "x"
        for layer in range(row.num_layers):
            names = [f"_l{layer}", f"_l{layer}_reverse"][:directions]
            w = np.stack([reordered(state["weight_ih" + name]) for name in names])
            r = np.stack([reordered(state["weight_hh" + name]) for name in names])
            b = np.stack(
                [
                    np.concatenate([reordered(state["bias_ih" + name]), reordered(state["bias_hh" + name])])
                    for name in names
                ]
            )
            options = {"linear_before_reset": 1} if row.kind == "GRU" else {}
            nodes.append(
                helper.make_node(
                    row.kind,
                    [x, constant(f"w{layer}", w), constant(f"r{layer}", r), constant(f"b{layer}", b)],
                    [f"y{layer}"],
                    hidden_size=h,
                    direction="bidirectional" if row.bidirectional else "forward",
                    **options,
                )
            )  # [steps, directions, batch, hidden]
            nodes.append(helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3]))
            to = constant(f"shape{layer}", np.array([row.steps, row.batch, directions * h], dtype=np.int64))
            x = "y" if layer == row.num_layers - 1 else f"x{layer}"
            nodes.append(helper.make_node("Reshape", [f"t{layer}", to], [x]))
        shape = [row.steps, row.batch, row.input_size], [row.steps, row.batch, directions * h]
    graph = helper.make_graph(
        nodes,
        row.kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape[0])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape[1])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _onnxruntime(module, row, x, threads, quantized: bool) -> Run:
    import onnx
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(_onnx_model(module, row), path)
        if quantized:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            float_path, path = path, Path(folder) / "int8.onnx"
            quantize_dynamic(float_path, path, weight_type=QuantType.QInt8, per_channel=True)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(["y"], feed)[0]


def onnxruntime_float(module, row, x, threads):
    return _onnxruntime(module, row, x, threads, quantized=False)


def onnxruntime_int8(module, row, x, threads):
    if row.kind == "GRU":
        return None  # it quantizes no GRU
    return _onnxruntime(module, row, x, threads, quantized=True)


def openvino(module, row, x, threads):
    """Its defaults: bfloat16 where the CPU has it."""
    import openvino as ov

    if row.kind == "Linear":
        return None
    model = ov.Core().read_model(_onnx_model(module, row).SerializeToString())
    compiled = ov.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    )
    request, array = compiled.create_infer_request(), x.numpy()

    def run():
        return request.infer([array], share_inputs=True, share_outputs=True)[0]

    return run


def ncnn_int8(module, row, x, threads):
    """Its int8 LSTM and GRU, which take one sequence and one layer; the model is written without its converter."""
    import ncnn

    simple = row.num_layers == 1 and row.batch == 1 and not row.bidirectional and row.hidden_size <= 1024
    if row.kind == "Linear" or not simple:
        return None
    h, i, gates = row.hidden_size, row.input_size, row.gates
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    order = {"LSTM": (0, 1, 3, 2), "GRU": (0, 1, 2)}[row.kind]  # i f o g, r z n

    def reordered(array):
        return np.concatenate([array[g * h : (g + 1) * h] for g in order])

    def int8(array):
        scale = 127 / np.abs(array).max(axis=1)
        q = np.clip(np.round(array * scale[:, None]), -127, 127).astype(np.int8)
        data = q.tobytes()
        return np.uint32(0x000D4B38).tobytes() + data + bytes(-len(data) % 4), scale.astype("<f4").tobytes()

    w, w_scale = int8(reordered(state["weight_ih_l0"]))
    r, r_scale = int8(reordered(state["weight_hh_l0"]))
    b_ih, b_hh = reordered(state["bias_ih_l0"]), reordered(state["bias_hh_l0"])
    if row.kind == "LSTM":
        bias = b_ih + b_hh
    else:
        bias = np.concatenate([b_ih[: 2 * h] + b_hh[: 2 * h], b_ih[2 * h :], b_hh[2 * h :]])
    net = ncnn.Net()
    net.opt.num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        param, weights = Path(folder) / "m.param", Path(folder) / "m.bin"
        param.write_text(
            f"7767517\n2 2\nInput in0 0 1 in0\n{row.kind} l 1 1 in0 out0 0={h} 1={gates * h * i} 2=0 8=2\n"
        )
        tag = np.uint32(0).tobytes()
        weights.write_bytes(w + tag + bias.astype("<f4").tobytes() + r + w_scale + r_scale)
        if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
            return None
    array = np.ascontiguousarray(x.numpy()[:, 0])

    def run():
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(array))
        return np.array(extractor.extract("out0")[1])[:, None]

    return run


PEERS = {
    "torch fp32": torch_float,
    "torch.ao int8": torch_ao,
    "onnxruntime fp32": onnxruntime_float,
    "onnxruntime int8": onnxruntime_int8,
    "openvino": openvino,
    "ncnn int8": ncnn_int8,
}
OURS = {"fourfold int8": fourfold_int8, "fourfold fp32": fourfold_float}
