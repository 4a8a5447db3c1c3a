"""A file that `to_onnx` wrote, in whatever onnxruntime this process has; prints JSON.

python onnxruntime_session.py FOLDER, which holds net.onnx, net.graphopt, x.npy and y.npy, the
result of the module for x. It needs onnxruntime and numpy alone: old versions of both run it.
"""

import json
import platform
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime as ort

folder = Path(sys.argv[1])
x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")


def session(has_library: bool, threads: int = 0, optimizes: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimizes:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if has_library:
        library = folder / "net.graphopt" / f"onnxruntime-{platform.machine()}.so"
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(str(folder / "net.onnx"), options, ["CPUExecutionProvider"])


def same(net: ort.InferenceSession) -> bool:
    return bool(np.array_equal(net.run(None, {"input": x})[0], y))


def at_once(nets: list[ort.InferenceSession], runs: int) -> int:
    """How many of the runs of several threads give the bits of y."""
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda net=net: results.extend(same(net) for _ in range(runs)))
        for net in nets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results)


def message(net: ort.InferenceSession, given: np.ndarray) -> str:
    try:
        net.run(None, {"input": given})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


unaligned = np.frombuffer(b"\0" * 1 + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)
native, plain = session(True), session(False)
long = np.concatenate([x, x], 1)
print(
    json.dumps(
        {
            "version": ort.__version__,
            "native": same(native),
            "threads": [same(session(True, threads)) for threads in (1, 3)],
            "unoptimized": same(session(True, optimizes=False)),
            "unaligned": bool(np.array_equal(native.run(None, {"input": unaligned})[0], y)),
            "longer": bool(
                np.array_equal(native.run(None, {"input": long})[0][:, : x.shape[1]], y)
            ),
            "at_once": at_once([native, native, session(True), session(True, 1)], 20),
            "shape": native.get_outputs()[0].shape,
            "type": native.get_outputs()[0].type,
            "refused": message(native, x[:, :, :-1]),
            "still": same(native),
            "plain": float(np.abs(plain.run(None, {"input": x})[0] - y).max()),
            "plain_is_native": same(plain),
        }
    )
)
