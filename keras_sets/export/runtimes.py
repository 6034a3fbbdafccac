"""Exported files, asked as the programs ask them that serve them.

Each function opens a file and returns a function of the model's inputs, as NumPy arrays, to a
flat list of answers. `specs` are the inputs with their served names.
"""

import numpy as np
from keras import tree


def _by_name(specs, inputs):
    names = [spec.name for spec in tree.flatten(specs)]
    return dict(zip(names, tree.flatten(inputs), strict=True))


def tensorflow(path, specs):
    import tensorflow as tf

    served = tf.saved_model.load(path)
    return lambda inputs: [
        np.asarray(y) for y in tree.flatten(served.serve(tree.map_structure(tf.constant, inputs)))
    ]


def onnxruntime(path, specs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # A converter may leave out what the answer does not depend on.
    names = [x.name for x in session.get_inputs()]

    def answer(inputs):
        inputs = _by_name(specs, inputs)
        return session.run(None, {name: inputs[name] for name in names})

    return answer


def openvino(path, specs):
    import openvino

    # Without the hint it may compute in half precision.
    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: list(model(_by_name(specs, inputs)).values())


def litert(path, specs):
    import tensorflow as tf

    run = tf.lite.Interpreter(path).get_signature_runner("serving_default")
    return lambda inputs: list(run(**_by_name(specs, inputs)).values())


def torch(path, specs):
    import torch

    program = torch.export.load(path)
    module = program.module()
    # Traced where the weights are.
    device = next((x.device for x in program.state_dict.values()), torch.device("cpu"))

    def answer(inputs):
        inputs = tree.map_structure(lambda x: torch.from_numpy(x).to(device), inputs)
        with torch.no_grad():
            answers = module(inputs)
        return [y.float().numpy(force=True) for y in tree.flatten(answers)]

    return answer
