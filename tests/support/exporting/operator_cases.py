"""Test cases for each ONNX operator that the importer supports, in the forms of several opsets."""

from __future__ import annotations

import numpy as np
from onnx import helper

from support.exporting.onnx_models import node, random
from support.exporting.operator_case import OPSETS, Case, floats, ints, one, scalar

TOKEN = {"token": random(1, 6, 1, 8)}

UNARY = "Abs Ceil Cos Elu Erf Exp Floor HardSwish Identity LeakyRelu Neg Relu Round Selu Sigmoid Sign Sin Softplus "
UNARY += "Softsign Tan Tanh Atan Celu ThresholdedRelu HardSigmoid Dropout"

CASES = [
    *[one(operator) for operator in UNARY.split()],
    *[one(operator, positive=True) for operator in ("Log", "Sqrt", "Reciprocal")],
    *[one(operator, opsets=(20,)) for operator in ("Gelu", "Mish")],
    one("Gelu", approximate="tanh", opsets=(20,)),
    one("Elu", alpha=0.3),
    one("LeakyRelu", alpha=0.2),
    one("Selu", alpha=1.2, gamma=0.7),
    one("Celu", alpha=0.4),
    one("HardSigmoid", alpha=1 / 6, beta=0.5, name="hardsigmoid"),
    one("ThresholdedRelu", alpha=0.3),
    # Before opset 11, the bounds of Clip were attributes.
    one("Clip", scalar(0), scalar(6), opsets=(11, 13, 17), name="relu6"),
    one("Clip", scalar(-0.5), None, opsets=(11, 17), name="clip from below"),
    one("Clip", None, scalar(0.2), opsets=(11, 17), name="clip from above"),
    one("Clip", min=-0.2, max=0.4, opsets=(7, 10)),
    one("Dropout", scalar(0.5), opsets=(13,), name="dropout with a ratio"),
    one("PRelu", random(6, 1, 1)),
    one("PRelu", random(1), name="prelu of one slope"),
    one("PRelu", random(8), name="prelu of a slope a column"),
    one("PRelu", random(6, 8, 8), name="prelu of a slope each"),
    # Arithmetic, with a constant on either side, of every shape that broadcasts.
    *[one(op, scalar(0.7), name=f"{op} scalar") for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")],
    one("Pow", scalar(2.0), name="square"),
    one("Pow", scalar(0.5), positive=True, name="root"),
    *[one(op, random(6, 1, 1), name=f"{op} channels") for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")],
    *[
        Case(f"{op} from a constant", [node(op, ["c", "x"], ["y"])], {"c": c}, positive=True)
        for op in ("Add", "Sub", "Mul", "Div")
        for c in [scalar(1.5)]
    ],
    Case("Sub from an array", [node("Sub", ["c", "x"], ["y"])], {"c": random(1, 6, 1, 1)}),
    Case("Pow of a constant", [node("Pow", ["c", "x"], ["y"])], {"c": scalar(2.0)}),
    Case("Sum", [node("Sum", ["x", "c", "x"], ["y"])], {"c": random(6, 8, 8)}),
    Case("Mean", [node("Mean", ["x", "c", "x"], ["y"])], {"c": random(6, 8, 8)}),
    Case("Mod", [node("Mod", ["x", "c"], ["y"], fmod=1)], {"c": scalar(0.3)}),
    *[
        Case(
            op,
            [node(op, ["x", "c"], ["m"]), node("Where", ["m", "x", "d"], ["y"])],
            {"c": scalar(0.1), "d": random(6, 1, 1)},
        )
        for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")
    ],
    Case(
        "logic",
        [
            node("Greater", ["x", "c"], ["a"]),
            node("Less", ["x", "d"], ["b"]),
            node("And", ["a", "b"], ["e"]),
            node("Not", ["a"], ["f"]),
            node("Or", ["e", "f"], ["g"]),
            node("Xor", ["g", "b"], ["h"]),
            node("Cast", ["h"], ["y"], to=1),
        ],
        {"c": scalar(-0.2), "d": scalar(0.3)},
    ),
    Case(
        "Equal",
        [node("Round", ["x"], ["r"]), node("Equal", ["r", "c"], ["m"]), node("Cast", ["m"], ["y"], to=1)],
        {"c": scalar(1.0)},
    ),
    Case("Cast", [node("Cast", ["x"], ["i"], to=7), node("Cast", ["i"], ["y"], to=1)]),
    Case("CastLike", [node("Cast", ["x"], ["i"], to=6), node("CastLike", ["i", "x"], ["y"])]),
    one("Swish", alpha=1.5, opsets=(24,)),
    # Before opset 13, these flattened all axes from the given axis on into one vector.
    *[one(op, axis=axis, opsets=(11, 13, 17)) for op in ("Softmax", "LogSoftmax") for axis in (1, 2, 3)],
    one("Softmax", opsets=(11, 17), name="softmax by default"),
    # Convolutions
    one("Conv", random(4, 6, 3, 3), random(4), pads=[1] * 4, opsets=OPSETS),
    one("Conv", random(4, 6, 3, 3), strides=[2, 3], dilations=[2, 1], pads=[2, 1, 2, 1]),
    one("Conv", random(4, 6, 3, 3), pads=[0, 1, 2, 3], name="conv of uneven padding"),
    one("Conv", random(6, 1, 3, 3), group=6, name="depthwise"),
    one("Conv", random(4, 3, 1, 1), group=2, name="grouped"),
    *[
        one("Conv", random(4, 6, 4, 3), auto_pad=mode, strides=[s, s], name=f"conv {mode} {s}")
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for s in (1, 2, 3)
    ],
    one("ConvTranspose", random(6, 4, 3, 3), random(4), strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
    one("ConvTranspose", random(6, 2, 3, 3), group=2, dilations=[2, 2]),
    one("ConvTranspose", random(6, 4, 3, 3), pads=[0, 1, 2, 1], name="transposed of uneven padding"),
    # Pools
    *[
        one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], opsets=OPSETS, **options)
        for options in (
            {},
            {"pads": [1, 1, 1, 1]},
            {"pads": [0, 1, 1, 0]},
            {"ceil_mode": 1},
            {"auto_pad": "SAME_UPPER"},
        )
    ],
    one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], name="dilated pool"),
    one("MaxPool", kernel_shape=[3, 3], pads=[2] * 4, name="pool padded beyond half"),
    *[
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], count_include_pad=counted, opsets=(11, 19), **options)
        for options in ({}, {"pads": [1] * 4}, {"pads": [0, 1, 1, 0]}, {"pads": [2, 2, 2, 2]})
        for counted in (0, 1)
    ],
    one("AveragePool", kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2]),
    one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opsets=(17, 19)),
    one("GlobalAveragePool"),
    one("GlobalMaxPool"),
    # Norms
    one("BatchNormalization", random(6), random(6), random(6), random(6, low=0.5), epsilon=1e-3, opsets=OPSETS),
    one("InstanceNormalization", random(6), random(6), epsilon=1e-3),
    one("LayerNormalization", random(8), random(8), epsilon=1e-3),
    one("LayerNormalization", random(6, 8, 8), axis=1, name="layer norm over all"),
    one("LayerNormalization", random(8), axis=-1, name="layer norm without bias"),
    one("GroupNormalization", random(6), random(6), num_groups=3, opsets=(21,)),
    one("LRN", size=5, alpha=0.3, beta=0.6, bias=1.5),
    one("LpNormalization", axis=1, p=2),
    one("LpNormalization", axis=1, p=1),
    one("RMSNormalization", random(8), opsets=(23,)),
    # Reductions; in older opsets their axes were attributes.
    *[
        one(op, axes=[2, 3], keepdims=keep, opsets=(11, 17), positive=True)
        for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
        for keep in (0, 1)
    ],
    *[
        one(op, ints(-1, 1), keepdims=keep, opsets=(18, 21), name=f"{op} {keep}", positive=True)
        for op in ("ReduceMean", "ReduceMax", "ReduceProd", "ReduceSum", "ReduceSumSquare", "ReduceL2")
        for keep in (0, 1)
    ],
    one("ReduceProd", axes=[1], opsets=(13,)),
    one("ReduceSum", axes=[1, 2], opsets=(11,)),
    one("ReduceMean", None, noop_with_empty_axes=1, opsets=(18,), name="no reduction"),
    # Shapes
    one("Flatten"),
    one("Flatten", axis=-3, name="flatten from behind"),
    one("Transpose", perm=[0, 3, 1, 2]),
    one("Reshape", ints(0, -1), opsets=(11, 14, 19), name="reshape by zeros"),
    one("Reshape", ints(-1, 6, 64), name="reshape with a free batch"),
    one("Reshape", ints(0, 2, 3, 8, 8), name="reshape to groups"),
    one("Unsqueeze", ints(1, 3), name="unsqueeze"),
    one("Unsqueeze", axes=[1, -1], opsets=(11,)),
    Case(
        "Squeeze",
        [node("ReduceMean", ["x"], ["m"], axes=[2, 3]), node("Squeeze", ["m", "axes"], ["y"])],
        {"axes": ints(2, -1)},
    ),
    Case(
        "Squeeze by attribute",
        [node("ReduceMean", ["x"], ["m"], axes=[2, 3]), node("Squeeze", ["m"], ["y"], axes=[3])],
        opsets=(11,),
    ),
    one("Slice", ints(1, 2), ints(5, 7), ints(1, -1), ints(2, 1), opsets=(11, 17), name="slice"),
    one("Slice", ints(-1), ints(-(2**40)), ints(2), ints(-1), name="slice backwards"),
    one("Slice", ints(6), ints(1), ints(3), ints(-1), name="slice backwards in part"),
    one("Slice", ints(0), ints(2**62), ints(1), name="slice to the end"),
    one("Slice", starts=[1, 0], ends=[4, 2**31], axes=[1, 3], opsets=(9,)),
    one("Gather", np.array(2), axis=1, name="gather one"),
    one("Gather", ints(1, 2, 3), axis=1, name="gather neighbours"),
    one("Gather", np.array([[3, -1], [0, 0]]), axis=2, name="gather a table"),
    one("Gather", ints(-1), axis=3, name="gather the last"),
    Case("Concat itself", [node("Concat", ["x", "x"], ["y"], axis=-1)]),
    Case("Split", [node("Split", ["x", "s"], ["a", "b"], axis=1), node("Mul", ["b", "b"], ["y"])], {"s": ints(2, 4)}),
    Case("Split in equal parts", [node("Split", ["x"], ["a", "b"], axis=1), node("Sub", ["a", "b"], ["y"])]),
    Case(
        "Split by attribute",
        [node("Split", ["x"], ["a", "b"], axis=1, split=[4, 2]), node("Neg", ["b"], ["y"])],
        opsets=(11,),
    ),
    Case(
        "Split with a number",
        [node("Split", ["x"], ["a", "b", "c", "d"], axis=3, num_outputs=4), node("Add", ["d", "a"], ["y"])],
        opsets=(18,),
    ),
    one("Tile", ints(1, 2, 1, 3)),
    one("Pad", ints(0, 1, 2, 0, 0, 0, 1, 3), opsets=(11, 18), name="pad"),
    one("Pad", ints(0, 0, 2, 0, 0, 0, 1, 3), scalar(0.3), mode="constant", name="pad with a value"),
    one("Pad", ints(0, 0, 2, 1, 0, 0, 1, 3), mode="reflect"),
    one("Pad", ints(0, 0, 2, 1, 0, 0, 1, 3), mode="edge"),
    one("Pad", ints(1, 2), None, ints(3), opsets=(18,), name="pad an axis"),
    one("Pad", ints(0, 0, -1, 0, 0, 0, -2, 3), name="crop by padding"),
    one("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5, opsets=(9,)),
    one("Expand", ints(1, 6, 8, 8), name="expand to itself"),
    Case(
        "Expand",
        [node("ReduceMean", ["x"], ["m"], axes=[2, 3]), node("Expand", ["m", "s"], ["y"])],
        {"s": ints(6, 4, 4)},
    ),
    *[
        Case(
            f"depth to space {mode}",
            [node("Concat", ["x", "x"], ["c"], axis=1), node("DepthToSpace", ["c"], ["y"], blocksize=2, mode=mode)],
        )
        for mode in ("DCR", "CRD")
    ],
    one("SpaceToDepth", blocksize=2),
    # Resize, in every form that onnxruntime supports
    *[
        one(
            "Resize",
            None,
            floats(1, 1, *scales),
            mode=mode,
            coordinate_transformation_mode=coordinates,
            opsets=(13, 18),
            name=f"{mode} {coordinates} {scales}",
        )
        for mode in ("linear", "cubic")
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for scales in ((2, 2), (1.5, 0.5), (2.7, 1))
    ],
    *[
        one(
            "Resize",
            None,
            floats(1, 1, *scales),
            mode="nearest",
            coordinate_transformation_mode=coordinates,
            nearest_mode=rounding,
            name=f"nearest {coordinates} {rounding} {scales}",
        )
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn")
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for scales in ((2, 2), (1.5, 0.5))
        if coordinates != "tf_half_pixel_for_nn" or rounding == "floor"
    ],
    one("Resize", None, None, ints(1, 6, 5, 11), mode="linear", name="resize to a size", free=False),
    one("Resize", None, None, ints(5, 11), axes=[2, 3], mode="cubic", opsets=(18,), name="resize axes to a size"),
    one("Resize", None, floats(1, 1, 2, 2), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1, name="resize, inside"),
    one("Resize", floats(1, 1, 2, 3), mode="nearest", opsets=(10,), name="resize of opset 10"),
    one("Resize", floats(1, 1, 2, 3), mode="linear", opsets=(10,), name="linear resize of opset 10"),
    one("Upsample", floats(1, 1, 2, 3), mode="nearest", opsets=(9,)),
    one("Upsample", mode="linear", scales=[1.0, 1.0, 2.0, 2.0], opsets=(7,)),
    # Linear maps
    Case(
        "Gemm",
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"])],
        {"w": random(384, 5), "b": random(5)},
    ),
    Case(
        "Gemm transposed",
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], transB=1)],
        {"w": random(5, 384), "b": random(5)},
    ),
    Case(
        "Gemm scaled",
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0)],
        {"w": random(384, 5), "b": random(1, 5)},
    ),
    Case("MatMul", [node("MatMul", ["x", "w"], ["y"])], {"w": random(8, 5)}),
    Case(
        "MatMul and Add",
        [node("MatMul", ["x", "w"], ["m"]), node("Add", ["b", "m"], ["y"])],
        {"w": random(8, 5), "b": random(5)},
    ),
    Case("MatMul from the left", [node("MatMul", ["w", "x"], ["y"])], {"w": random(5, 8)}),
    Case(
        "MatMul of images",
        [node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["x", "t"], ["y"])],
    ),
    Case("Einsum", [node("Einsum", ["x", "w"], ["y"], equation="nchw,wd->nchd")], {"w": random(8, 5)}),
    Case("Attention", [node("Attention", ["x", "x", "x"], ["y"])], opsets=(23,)),
    Case("Attention scaled", [node("Attention", ["x", "x", "x"], ["y"], scale=0.3)], opsets=(23,)),
    # Constants that the file computes
    Case(
        "Constant",
        [
            node("Constant", [], ["c"], value_floats=[0.5]),
            node("Constant", [], ["i"], value_ints=[0, -1]),
            node("Mul", ["x", "c"], ["m"]),
            node("Reshape", ["m", "i"], ["y"]),
        ],
    ),
    Case(
        "weights in eight bits",
        [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0), node("Conv", ["x", "w"], ["y"])],
        {
            "q": np.random.default_rng(0).integers(-128, 128, (4, 6, 3, 3)).astype(np.int8),
            "s": random(4, low=0.01, high=0.1),
            "z": np.array([0, 3, -5, 7], np.int8),
        },
    ),
    Case(
        "weights in half precision",
        [node("Cast", ["h"], ["w"], to=1), node("Conv", ["x", "w"], ["y"])],
        {"h": random(4, 6, 3, 3).astype(np.float16)},
    ),
    Case(
        "shared weights",
        [
            node("Identity", ["w"], ["v"]),
            node("Conv", ["x", "w"], ["a"]),
            node("Conv", ["x", "v"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ],
        {"w": random(4, 6, 3, 3)},
    ),
    # Shapes that the file computes: view(x.size(0), -1), and a pool whose window is computed
    Case(
        "view",
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axes"], ["u"]),
            node("Concat", ["u", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        {"zero": np.array(0), "axes": ints(0), "rest": ints(-1)},
    ),
    Case(
        "channel shuffle",
        [
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "a", "b"], ["n"]),
            node("Slice", ["s", "b", "c"], ["ch"]),
            node("Slice", ["s", "c", "d"], ["hw"]),
            node("Div", ["ch", "groups"], ["per"]),
            node("Concat", ["n", "groups", "per", "hw"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["g"]),
            node("Transpose", ["g"], ["p"], perm=[0, 2, 1, 3, 4]),
            node("Reshape", ["p", "s"], ["y"]),
        ],
        {"a": ints(0), "b": ints(1), "c": ints(2), "d": ints(4), "groups": ints(2)},
    ),
    Case(
        "expanded class token",
        [
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "a", "b"], ["n"]),
            node("Concat", ["n", "rest"], ["t"], axis=0),
            node("ConstantOfShape", ["four"], ["ones"], value=helper.make_tensor("", 7, [1], [1])),
            node("Mul", ["ones", "minus"], ["m"]),
            node("Equal", ["t", "m"], ["e"]),
            node("Where", ["e", "ones", "t"], ["w"]),
            node("Expand", ["token", "w"], ["tokens"]),
            node("Concat", ["tokens", "x"], ["y"], axis=2),
        ],
        {
            "a": ints(0),
            "b": ints(1),
            "rest": ints(6, 1, 8),
            "four": ints(4),
            "minus": ints(-1),
            **TOKEN,
        },
        fixed=False,
    ),
    Case(
        "arithmetic on sizes",
        [
            node("Shape", ["x"], ["s"]),
            node("Cast", ["s"], ["f"], to=1),
            node("Mul", ["f", "half"], ["h"]),
            node("Floor", ["h"], ["fl"]),
            node("Cast", ["fl"], ["i"], to=7),
            node("Slice", ["i", "two", "four"], ["hw"]),
            node("Slice", ["x", "zeros", "hw", "axes"], ["y"]),
        ],
        {"half": scalar(0.5), "two": ints(2), "four": ints(4), "zeros": ints(0, 0), "axes": ints(2, 3)},
    ),
    Case(
        "Range",
        [
            node("Range", ["a", "b", "c"], ["r"]),
            node("Gather", ["x", "r"], ["y"], axis=2),
        ],
        {"a": np.array(6), "b": np.array(0), "c": np.array(-2)},
    ),
    Case(
        "Size and ReduceProd",
        [
            node("Shape", ["x"], ["s"], start=1),
            node("ReduceProd", ["s"], ["p"]),
            node("Concat", ["m", "p"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        {"m": ints(-1)},
    ),
]
