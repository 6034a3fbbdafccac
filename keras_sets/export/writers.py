"""Writes models on sets in each format: what Keras needs to be told, and what it cannot do."""

import pathlib
import warnings

import keras
from keras import tree


def write(model, path, format, specs):
    with warnings.catch_warnings():
        # Of all that converters warn of only wrong answers count, and these are looked for.
        warnings.simplefilter("ignore")
        way = (format, keras.config.backend())
        if way == ("onnx", "tensorflow"):
            return _write_onnx_from_tensorflow(model, path, specs)
        if way == ("onnx", "torch"):
            return _write_onnx_from_torch(model, path, specs)
        arguments = {}
        if way == ("tf_saved_model", "jax"):
            # One symbol an axis: by itself Keras gives the set size of every input another one.
            # Both platforms: by itself JAX writes for the one that it runs on.
            arguments["jax2tf_kwargs"] = {
                "polymorphic_shapes": [tree.map_structure(_symbolic_shape, specs)],
                "native_serialization_platforms": ("cpu", "cuda"),
                "with_gradient": False,
            }
        elif format == "torch":
            arguments["dynamic_shapes"] = _torch_dimensions(specs)
        elif format == "litert":
            # Nothing beyond what every LiteRT runtime has.
            arguments["target_spec"] = {"supported_ops": ["TFLITE_BUILTINS"]}
        model.export(path, format=format, verbose=False, input_signature=[specs], **arguments)
        if way == ("openvino", "tensorflow"):
            _keep_named_outputs(path)


def _keep_named_outputs(path):
    """Takes out of an OpenVINO file the results that its converter makes of unused operations."""
    import openvino

    model = openvino.Core().read_model(path)
    weights = pathlib.Path(path).with_suffix(".bin")
    for result in model.get_results():
        if not any("Identity" in name for name in result.get_output_tensor(0).get_names()):
            model.remove_result(result)
    temporary = str(pathlib.Path(path).with_name("kept.xml"))
    openvino.save_model(model, temporary, compress_to_fp16=False)
    del model
    pathlib.Path(temporary).replace(path)
    pathlib.Path(temporary).with_suffix(".bin").replace(weights)


def _write_onnx_from_tensorflow(model, path, specs):
    """Writes what `model.export` would, but for two operations that it gets wrong."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    signature = [
        tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype, spec.name), specs)
    ]
    function = tf.function(lambda inputs: model(inputs, training=False), signature)

    def select(context, node, name, arguments):
        # By itself `condition * x + (1 - condition) * y`: NaN where the other one is not finite.
        node.type = "Where"

    # Before version 18 means become pooling of images, which fails without entities.
    written, _ = tf2onnx.convert.from_function(
        function, signature, opset=18, custom_op_handlers={"SelectV2": (select, [])}
    )
    _reshape_to_nothing(written.graph, {})
    onnx.save(written, path)


def _reshape_to_nothing(graph, constants):
    """Takes a size of 0 in the target of a Reshape for 0; by default it means 'as it was'."""
    from onnx import helper
    from onnx import numpy_helper

    constants = {**constants, **{x.name: numpy_helper.to_array(x) for x in graph.initializer}}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _reshape_to_nothing(attribute.g, constants)
        if node.op_type == "Reshape" and 0 not in constants.get(node.input[1], ()):
            node.attribute.append(helper.make_attribute("allowzero", 1))


def _write_onnx_from_torch(model, path, specs):
    """From a graph with symbols for sizes; `model.export` traces one example, where 1 stays 1."""
    import torch

    example = tree.map_structure(
        lambda spec: torch.ones(
            [2 if size is None else size for size in spec.shape],
            dtype=getattr(torch, spec.dtype),
            device=next(iter(model.parameters())).device,
        ),
        specs,
    )
    model.eval()
    program = torch.export.export(
        model, (example,), strict=False, dynamic_shapes=_torch_dimensions(specs)
    )
    names = [spec.name for spec in tree.flatten(specs)]
    torch.onnx.export(
        program, (), path, dynamo=True, input_names=names, opset_version=18, verbose=False
    )


def _symbolic_shape(spec):
    sizes = [
        name if size is None else str(size)
        for name, size in zip(spec.symbols, spec.shape, strict=True)
    ]
    return f"({', '.join(sizes)})"


def _torch_dimensions(specs):
    import torch

    names = {name for spec in tree.flatten(specs) for name in spec.symbols}
    dims = {name: torch.export.Dim(name) for name in names}
    free = [
        {axis: dims[spec.symbols[axis]] for axis, size in enumerate(spec.shape) if size is None}
        for spec in tree.flatten(specs)
    ]
    return [(tree.pack_sequence_as(specs, free),)]
