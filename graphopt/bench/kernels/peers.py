"""Other libraries' kernels for the same workloads, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from graphopt.bench.kernels import peers_onnx, peers_torch
from graphopt.bench.kernels.workloads import Array, Operands, Workload, as_values
from graphopt.bench.worker import Worker, fork

Call = Callable[[], Array]


@dataclass(frozen=True)
class Peer:
    """One library's way to compute a workload.

    Attributes:
        name: library and function.
        prepare: a function of a module; ``prepare(operands, threads)`` gives a call that returns
            the result.
        part: what it covers, see :class:`row.Row`.
        exact: what it has to give where that is not the workload's exact result.
        limit: how far from it; by default the workload's.
        note: what there is to know of the comparison.
    """

    name: str
    prepare: Callable[[Operands, int], Call]
    part: str = "call"
    exact: Callable[[Workload], Array] | None = None
    limit: float | None = None
    note: str = ""


class Processes:
    """A process for each peer, made when it is asked for first, or again after it died."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def of(self, peer: Peer) -> Worker:
        """The process of a peer, with a `Running` in it."""
        worker = self._workers.get(peer.name)
        if worker is None or not worker.is_alive:
            worker = self._workers[peer.name] = fork(Running())
        return worker

    def end(self) -> None:
        """Ends them."""
        for worker in self._workers.values():
            worker.end()


class Running:
    """A peer with the workload that it computes at the moment."""

    def prepare(self, peer: Peer, operands: Operands, threads: int) -> Array:
        """Prepares a peer and runs it once.

        Args:
            peer: what computes.
            operands: of the workload.
            threads: of the library.

        Returns:
            The result; bf16 as f32.
        """
        self._call = peer.prepare(operands, threads)
        return as_values(self._call())

    def run(self, repeats: int) -> float:
        """Seconds of some calls."""
        start = time.perf_counter()
        for _ in range(repeats):
            self._call()
        return time.perf_counter() - start


_CONV = "[channels, time], without the residual"


def without_residual(work: Workload) -> Array:
    """What a plain depthwise convolution gives, [channels, time]."""
    return (work.exact - work.data["x"]).T


_PEERS: dict[tuple[str, str], tuple[Peer, ...]] = {
    ("gemm", "int8"): (
        Peer(
            "onnxruntime MatMulInteger",
            peers_onnx.matmul_integer,
            "kernel",
            exact=peers_onnx.integer_product,
            limit=0,
            note="gives int32: neither scales nor bias",
        ),
        Peer("onnxruntime dynamic int8", peers_onnx.dynamic_matmul, note="one scale for all of A"),
        Peer("torch dynamic int8", peers_torch.dynamic_linear, note="one scale for all of A"),
    ),
    ("gemm", "int4 blocks"): (
        Peer(
            "onnxruntime MatMulNBits",
            peers_onnx.matmul_nbits,
            note="accuracy level 4: A in int8 by blocks",
        ),
    ),
    ("gemm", "bf16"): (
        Peer("torch bf16", peers_torch.bf16_linear, note="rounds the result to bf16"),
    ),
    ("gemm", "f32"): (
        Peer("torch f32", peers_torch.linear),
        Peer("onnxruntime f32", peers_onnx.matmul),
        Peer("openvino f32", peers_onnx.openvino_matmul),
    ),
    ("norm", "f32"): (
        Peer("torch layer_norm", peers_torch.layer_norm),
        Peer("onnxruntime LayerNormalization", peers_onnx.layer_norm),
    ),
    ("depthwise", "f32"): (
        Peer("torch conv1d", peers_torch.depthwise, exact=without_residual, note=_CONV),
        Peer("onnxruntime Conv", peers_onnx.depthwise, exact=without_residual, note=_CONV),
    ),
    ("attention", "f32"): (
        Peer("torch SDPA", peers_torch.attention),
        Peer("onnxruntime MultiHeadAttention", peers_onnx.attention),
    ),
    ("attention", "bf16"): (Peer("torch SDPA bf16", peers_torch.bf16_attention),),
}


def peers_of(work: Workload) -> tuple[Peer, ...]:
    """The peers of a workload."""
    kind = f"{work.label.scheme} blocks" if work.label.group else work.label.scheme
    return _PEERS.get((work.label.op, kind), ())
