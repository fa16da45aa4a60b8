"""onnxruntime: the network as Gemm, Relu and Softmax nodes, one plain `session.run` per prediction."""

import cases
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

OPERATORS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


def version():
    return f"onnxruntime {onnxruntime.__version__}"


def model(case, weights):
    """The network as ONNX, opset 17."""
    nodes, tensors, name = [], [], "x"
    for i, (W, b) in enumerate(weights):
        tensors += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"W{i}", f"b{i}"], [f"z{i}"]))
        last = i + 1 == len(weights)
        operator = ("Softmax" if case.loss == "cross_entropy" else "Sigmoid") if last else OPERATORS[case.activation]
        name = "out" if last else f"a{i}"
        nodes.append(helper.make_node(operator, [f"z{i}"], [name]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
    widths = {"x": case.sizes[0], "out": case.sizes[-1]}
    ends = [[helper.make_tensor_value_info(end, kind, ["rows", n])] for end, n in widths.items()]
    graph = helper.make_graph(nodes, "mlp", *ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Entrant:
    def __init__(self, case, X, y, weights, threads):
        if case.batch:
            raise cases.Unsupported("predicts only")
        made = model(case, weights)
        onnx.checker.check_model(made)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=providers)

    def predict(self, X):
        return self.session.run(None, {"x": X})[0]
