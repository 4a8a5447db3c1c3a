"""Capture: what becomes a graph and how it is called, and what is refused with which words."""

import copy
from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")

from captured import Function, arrays  # noqa: E402
from graphs import assert_close  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.errors import (  # noqa: E402
    CaptureError,
    InputError,
    InputOverlapError,
    InputStridesError,
    OptionError,
    TrainingModeError,
)
from graphopt.frontend import exporting  # noqa: E402
from graphopt.frontend.arguments import call_key  # noqa: E402
from graphopt.frontend.capture import Captured, capture  # noqa: E402
from graphopt.frontend.regions import functional  # noqa: E402
from graphopt.hosts.torch_ops import to_torch  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402


class Model(torch.nn.Module):
    """A linear layer in eval mode; subclasses add `forward`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)
        self.eval()


def call(found: Captured, *args: Any, **kwargs: Any) -> Any:
    """The captured model through numpy."""
    graph = found.graph
    if not all(n.is_lowered for n in graph.nodes):
        PassManager(Config(verify=True)).run(graph, lowering_passes())
    outputs = run_graph(graph, arrays(found.call.flatten(args, kwargs)))
    tensors = [to_torch(y.copy(), v.dtype) for y, v in zip(outputs, graph.outputs, strict=True)]
    return found.call.unflatten(tensors, args, kwargs)


def same(got: Any, wanted: Any) -> None:
    assert torch.utils._pytree.tree_structure(got) == torch.utils._pytree.tree_structure(wanted)
    assert_close(arrays(got), arrays(wanted), FP32_RELATIVE)


def test_a_batch_of_one_stays_dynamic() -> None:
    class Dynamic(Model):
        def forward(self, x):
            return self.linear(x).relu()

    model = Dynamic()
    found = capture(model, (torch.randn(1, 5, 4),))
    assert list(found.graph.dims) == ["B", "T"]
    assert [i.hint for i in found.graph.dims.values()] == [1, 5]
    assert found.graph.inputs[0].name == "x" and str(found.graph.inputs[0].shape) == "(B, T, 4)"
    for shape in ((1, 5, 4), (3, 2, 4), (1, 1, 4)):
        x = torch.randn(shape)
        with torch.no_grad():
            same(call(found, x), model(x))


def test_dynamic_shapes_are_obeyed() -> None:
    class Dynamic(Model):
        def forward(self, x):
            return x * 2

    shapes = {"x": {0: torch.export.Dim("batch"), 1: None}}
    found = capture(Dynamic(), (torch.randn(2, 5),), None, shapes)
    assert list(found.graph.dims) == ["B"] and found.graph.inputs[0].shape[1] == 5


def test_a_dict_that_the_model_changes() -> None:
    class Cached(Model):
        def forward(self, x, cache):
            y = self.linear(x) + cache["sum"]
            cache["sum"] = y
            cache["new"] = x * 2
            return y

    model = Cached()
    x = torch.randn(2, 4)
    caches = [{"sum": torch.ones(2, 3), "kept": torch.zeros(1)} for _ in range(2)]
    found = capture(model, (x, {k: v.clone() for k, v in caches[0].items()}))
    assert found.call.changes_arguments
    kept = caches[1]["kept"]
    with torch.no_grad():
        same(call(found, x, caches[1]), model(x, caches[0]))
    same(caches[1], caches[0])
    assert caches[1]["kept"] is kept


def test_keywords_and_constants() -> None:
    class Options(Model):
        def forward(self, x, scale=1.0, *, bias=None, negate=False):
            y = self.linear(x) * scale
            y = y if bias is None else y + bias
            return -y if negate else y

    model, x = Options(), torch.randn(2, 4)
    kwargs = dict(bias=torch.randn(3), negate=True)
    found = capture(model, (x, 3), kwargs)
    assert [v.name for v in found.graph.inputs] == ["x", "bias"]
    assert sorted(map(str, found.call.constants.values())) == ["3", "True"]
    with torch.no_grad():
        same(call(found, x, 3, **kwargs), model(x, 3, **kwargs))
    assert call_key((x, 3), kwargs) != call_key((x, 4), kwargs)
    assert call_key((x, 3), kwargs) == call_key((torch.randn(7, 4), 3), kwargs)
    assert call_key((x, 3), kwargs) != call_key((x.double(), 3), kwargs)
    assert call_key((x, 3), kwargs) != call_key((x[None], 3), kwargs)


def test_examples_that_share_memory() -> None:
    model, base = Function(lambda x, y: x - y * 2), torch.arange(24.0).reshape(4, 6)
    wide = torch.ones(1, 6).expand(4, 6)
    for x, y in ((base, base), (base[:, :3], base[:, 3:]), (base[:2], base[1:3]), (wide, base)):
        found = capture(model, (x, y))
        for other in ((x, y), (torch.randn(3, 2), torch.randn(3, 2))):
            same(call(found, *other), model(*other))


class Opaque:
    """Holds a tensor that no capture sees."""

    scale = torch.ones(3)


ARGUMENTS: dict[str, tuple[Any, str]] = {
    "object": (Opaque(), r"a Opaque as argument\[1\], which may hide tensors"),
    "array": ([np.ones(3)], r"a numpy array: torch\.from_numpy"),
    "sparse": (
        {"y": torch.eye(3).to_sparse()},
        r"argument\[1\]\['y'\] is a sparse_coo tensor on cpu",
    ),
    "meta": (torch.ones(3, device="meta"), r"argument\[1\] is a strided tensor on meta"),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_that_no_capture_takes(kind: str) -> None:
    argument, message = ARGUMENTS[kind]
    with pytest.raises(InputError, match=message):
        graphopt.optimize(Function(lambda x, y: x * 2))(torch.ones(3), argument)


def test_structures_of_outputs() -> None:
    class Outputs(Model):
        def forward(self, x, lengths):
            y = self.linear(x)
            return {"y": y, "more": (x, [lengths, None]), "name": "text", "again": y}

    model, args = Outputs(), (torch.randn(2, 4), torch.tensor([1, 2]))
    found = capture(model, args)
    with torch.no_grad():
        got, wanted = call(found, *args), model(*args)
    same(got, wanted)
    assert got["name"] == "text" and got["more"][1][1] is None


def test_origins_name_module_and_line() -> None:
    class Nested(Model):
        def forward(self, x):
            return self.linear(x) * 2  # the line

    graph = capture(Nested(), (torch.randn(2, 4),)).graph
    origins = {n.op.name: n.origin for n in graph.nodes}
    assert origins["aten.linear"].module == "linear"
    assert "test_capture.py" in origins["aten.mul"].source
    assert origins["aten.mul"].code == "return self.linear(x) * 2  # the line"


def test_sizes_that_depend_on_another_input() -> None:
    model = Function(lambda x, y, conv: conv(x) + y, conv=torch.nn.Conv1d(4, 3, 3))
    found = capture(model, (torch.randn(2, 4, 7), torch.randn(2, 3, 5)))
    assert [str(v.shape[2]) for v in found.graph.inputs] == ["T + 2", "T"]
    x, y = torch.randn(1, 4, 11), torch.randn(1, 3, 9)
    with torch.no_grad():
        same(call(found, x, y), model(x, y))


def test_training_mode_is_refused() -> None:
    with pytest.raises(TrainingModeError, match="Linear is in training mode"):
        capture(torch.nn.Linear(4, 3), (torch.randn(2, 4),))
    model = Function(lambda x, dropout: dropout(x), dropout=torch.nn.Dropout())
    model.dropout.train()
    with pytest.raises(TrainingModeError, match="Dropout, the submodule 'dropout', is in training"):
        graphopt.optimize(model)
    assert model.dropout.training and not model.training


def test_control_flow_on_data_names_the_line() -> None:
    class Branch(Model):
        def forward(self, x):
            if x.sum() > 0:  # depends on values
                return x
            return -x

    with pytest.raises(CaptureError, match=r"(?s)test_capture\.py:\d+.*if x\.sum\(\) > 0.*rewrite"):
        capture(Branch(), (torch.randn(2, 4),))


def written(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.data.add_(1)
    return y


def assigned(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.data = x + 1
    return y


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (written, r"takes \.data of a tensor.*\.detach\(\)"),
        (lambda x: x.data + 1, r"takes \.data of a tensor"),
        (assigned, r"assigns to \.data"),
    ],
)
def test_data_of_tensors(function: Any, says: str) -> None:
    with pytest.raises(CaptureError, match=f"(?s){says}"):
        capture(Function(function), (torch.randn(2, 4),))


def test_writing_into_an_input_reaches_the_caller() -> None:
    class InPlace(Model):
        def forward(self, x, y):
            x.mul_(2)
            y["z"][:, 1:] = 3
            return self.linear(x), x

    model = InPlace()
    found = capture(model, (torch.randn(2, 4), {"z": torch.randn(2, 3)}))
    for batch in (2, 5):
        x, y = torch.randn(batch, 4), {"z": torch.randn(batch, 3)}
        mine, its = copy.deepcopy((x, y)), copy.deepcopy((x, y))
        with torch.no_grad():
            same(call(found, *mine), model(*its))
        same(mine, its)
        assert not torch.equal(mine[0], x)
    base = torch.randn(4, 4)
    with pytest.raises(InputOverlapError, match=r"shape \[2, 4\].* shares memory .*clone"):
        found.call.flatten((base[:2], {"z": base[2:, :3]}), {})


def test_writing_into_a_temporary_is_captured() -> None:
    class InPlace(Model):
        def forward(self, x):
            y = x * 2
            y.add_(1)
            z = y + 1
            y.clamp_(max=0.5)
            return y + z

    x = torch.randn(2, 4)
    same(call(capture(InPlace(), (x.clone(),)), x), InPlace()(x))


def _neighbours(y: Any) -> None:
    y[:, 1:] = y[:, :-1].clone()


def _halves(y: Any) -> None:
    first, second = y.split(2, 2)
    first.add_(second)
    second.zero_()


WRITES = [
    lambda y: y[:, 0].fill_(0),
    lambda y: y[..., :2].mul_(2),
    lambda y: y[:, -1:].neg_(),
    lambda y: y[0].copy_(y[1]),
    lambda y: y[..., 0::2].exp_(),
    lambda y: y.view(-1).add_(1),
    lambda y: y.transpose(1, 2)[:, 2].sub_(3),
    lambda y: y.chunk(2)[0].sigmoid_(),
    lambda y: y.view(*y.shape[:2], 2, 2)[:, :, 1, ::2].clamp_(min=0),
    lambda y: y.masked_fill_(y > 0, -1),
    lambda y: torch.mul(y[..., :2], 3, out=y[..., 2:]),
    lambda y: y.unsqueeze_(0).squeeze_(0).detach().add_(1),
    lambda y: y.copy_(torch.arange(4)),
    _neighbours,
    _halves,
]


def _written(x: Any, writes: Any) -> list[Any]:
    results = []
    for write in writes:
        y = x * 2
        write(y)
        results.append(y)
    return results


def test_writing_through_views_is_captured() -> None:
    model = Function(lambda x: _written(x, WRITES))
    found = capture(model, (torch.randn(2, 5, 4),))
    for shape in ((2, 5, 4), (4, 2, 4)):
        x = torch.randn(shape)
        same(call(found, x), model(x))


def test_writes_through_strides_and_indices() -> None:
    writes = [
        lambda y: y[:, 1::2].add_(1),
        lambda y: y.diagonal(dim1=1, dim2=2).fill_(1),
        lambda y: y[0].index_fill_(0, torch.tensor([1]), 5),
    ]
    model = Function(lambda x: _written(x, writes))
    fast = graphopt.optimize(model, precision="fp32")
    for shape in ((2, 5, 4), (3, 2, 4)):
        x = torch.randn(shape)
        same(fast(x), model(x))
    assert not fast.report().in_torch


def _residual(x: Any, layer: Any) -> Any:
    y = layer(x).relu_()
    z = layer(y)
    before = z.sigmoid().masked_fill_(z > 1, 2).clamp_(max=1.5)
    torch.empty(3).uniform_()  # as FunASR draws what it does not use
    z += y + torch.empty(4).zero_().fill_(0.5).neg_()
    return torch.nn.functional.silu(z, inplace=True) + z * before, y.tanh_(), z


def test_writes_to_what_nothing_else_views_need_no_second_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And are seen by every reader behind them, and by none before."""
    torch.manual_seed(0)
    model = Function(_residual, layer=torch.nn.Linear(4, 4))
    retraced: list[Any] = []
    monkeypatch.setattr(exporting, "functional", lambda p: retraced.append(p) or functional(p))
    found = capture(model, (torch.randn(2, 4),))
    assert not retraced
    with torch.no_grad():
        same(call(found, x := torch.randn(3, 4)), model(x))
    views = Function(
        lambda x, layer: (y := layer(x), v := y[0], y.relu_(), v)[1:3],
        **{"layer": torch.nn.Linear(4, 4)},
    )
    found = capture(views, (torch.randn(2, 4),))
    assert retraced
    with torch.no_grad():
        same(call(found, x), views(x))


def test_an_inplace_activation_leaves_batch_norm_whole() -> None:
    texts = []
    for inplace in (False, True):
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(inplace)]
        model = torch.nn.Sequential(*layers, torch.nn.Dropout2d()).eval()
        graph = capture(model, (torch.randn(2, 3, 5, 5),)).graph
        PassManager(Config(verify=True)).run(graph, lowering_passes())
        texts.append([(n.op.name, list(n.operands), repr(n.op)) for n in graph.nodes])
    assert texts[0] == texts[1] and all(op.startswith("go.") for op, *_ in texts[1])


@pytest.mark.parametrize(
    "asks",
    [lambda x: x.is_contiguous(), lambda x: (x + 1).stride(-1) == 1],
    ids=["whole", "stride"],
)
def test_a_model_that_asks_how_its_arguments_lie_is_called_with_such(asks) -> None:
    """Of any other the answer is another; one that does not ask takes all."""
    model = Function(lambda x: x * 2 if asks(x) else x * 3)
    x = torch.randn(3, 4)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    same(fast(x), model(x))
    with pytest.raises(InputStridesError, match=r"\[1, 3\].*test_capture.py:\d+ .*contiguous"):
        fast(torch.randn(4, 3).t())
    silent = graphopt.optimize(Function(lambda x: x * 2), precision="fp32", example_inputs=(x,))
    same(silent(x.t()), x.t() * 2)


class Stateful(Model):
    """Changes what it holds; `how` says what."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("seen", torch.zeros(4))
        self.register_buffer("count", torch.tensor(0))
        self.plain, self.calls, self.last, self.kept = torch.zeros(4), 0, None, []

    def forward(self, x):
        if self.how == "buffer":
            self.seen[0] += x.sum()
        elif self.how == "plain":
            self.plain.add_(x.sum())
        elif self.how == "assigned":
            self.seen = self.seen * 2 + 1
        elif self.how == "grows":
            self.seen = torch.cat([self.seen, x.sum(0)])
            return self.linear(x)
        elif self.how == "count":
            self.count += 2
            return self.linear(x) * self.count
        elif self.how == "weight":
            self.linear.weight.mul_(2)
        elif self.how == "calls":
            self.calls += 1
        elif self.how == "kept":
            self.kept.append(x)
        elif self.how == "late":
            self.kept.append(x)
            return self.linear(x) * max(0, len(self.kept) - 2)
        else:
            self.last, self.calls = x * 2, self.calls + 1
            self.kept.append(self.last)
            return self.linear(self.kept[-1])
        return self.linear(x + self.seen + self.plain) * self.calls + len(self.kept)


def held(model: Any) -> str:
    """All that a small model holds, as text."""
    attributes = {k: v for k, v in vars(model).items() if not k.startswith("_")}
    weights = [(name, v.detach().clone(), v.requires_grad) for name, v in model.named_parameters()]
    return repr((attributes, list(vars(model)), weights, list(model.buffers())))


@pytest.mark.parametrize("how", ["calls", "kept", "late", "nothing"])
def test_what_a_call_changes_in_the_model(how: str) -> None:
    model = Stateful(how)
    before = held(model)
    x = torch.randn(2, 4)
    if how == "nothing":  # that shows in a result
        same(call(capture(model, (x,)), x), copy.deepcopy(model)(x).detach())
    else:
        with pytest.raises(CaptureError, match="kept" if how == "late" else how):
            capture(model, (x,))
    assert held(model) == before


@pytest.mark.parametrize("how", ["buffer", "assigned", "plain", "weight", "count"])
def test_what_a_call_writes_to_tensors_of_the_model(how: str) -> None:
    model = Stateful(how)
    before, x = held(model), torch.randn(2, 4)
    found = capture(model, (x,))
    assert held(model) == before
    assert [state.name for state in found.call.states] == [
        {"weight": "linear.weight", "plain": "plain", "count": "count"}.get(how, "seen")
    ]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for batch in (2, 3):
            x = torch.randn(batch, 4)
            same(call(found, x), other(x))
            same([*model.state_dict().values()], [*other.state_dict().values()])
            same(model.plain, other.plain)


def test_a_buffer_that_grows_is_refused() -> None:
    model = Stateful("grows")
    before = held(model)
    with pytest.raises(CaptureError, match="'seen' another shape"):
        capture(model, (torch.randn(2, 4),))
    assert held(model) == before


def test_numbers_that_follow_from_sizes_are_results() -> None:
    model = Function(
        lambda x: (x.shape[0] * 2 + 1, x.shape[1] ** -0.5, x.shape[0] > 3, x * 2, x.shape)
    )
    found = capture(model, (torch.randn(2, 5),))
    for shape in ((2, 5), (7, 3)):
        got, wanted = call(found, x := torch.randn(shape)), model(x)
        same(got[3:], wanted[3:])
        rounded = wanted[0], pytest.approx(wanted[1], rel=1e-15), wanted[2]
        assert got[:3] == rounded and list(map(type, got)) == list(map(type, wanted))


def test_ranges_of_dynamic_shapes() -> None:
    dim, x = torch.export.Dim, torch.randn(5, 4)
    model = Function(lambda x: x * 2 if x.shape[0] <= 8 else x * 3)
    for varies in (dim("b", min=3, max=8), dim.DYNAMIC(min=3, max=8)):
        conditions = capture(model, (x,), None, ({0: varies},)).graph.conditions
        assert sorted(map(str, conditions)) == ["B <= 8", "B >= 3"]
    for varies in (dim("b", max=4), dim("b", min=6), 7):
        with pytest.raises(OptionError, match=r"dynamic_shapes\[0\]\[0\].* size 5 there"):
            capture(model, (x,), None, ({0: varies},))
    with pytest.raises(CaptureError, match="limits the size of b"):
        capture(Function(lambda x: x.reshape(5, -1)), (x,), None, ({0: dim("b")},))
    with pytest.raises(CaptureError, match=r"axis 0 of tensors_0 .* Dim\.AUTO"):
        capture(Function(lambda x: x * 2), (x,), None, ({0: 2 * dim("b") + 1},))


def test_regions_that_change_nothing_are_taken_in() -> None:
    class Regions(Model):
        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                y = self.linear(x.float())
                y[:, 0] = 3
            with torch.enable_grad():
                with torch.autocast("cuda"):
                    z = y * 2
                return z + 1, self.linear(x), x

    model, x = Regions(), torch.randn(2, 4)
    with torch.no_grad():
        same(call(capture(model, (x,)), x), model(x))


def test_autocast_casts_as_the_region_says() -> None:
    class Regions(Model):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = self.linear(x)
                with torch.autocast("cpu", enabled=False):
                    z = self.linear(y.float() @ self.linear.weight)
                return y, z, y @ y.T, y.softmax(-1)

    model, x = Regions(), torch.randn(2, 4)
    with torch.no_grad():
        got, wanted = call(capture(model, (x,)), x), model(x)
    assert [t.dtype for t in got] == [t.dtype for t in wanted]
    assert_close(arrays([t.float() for t in got]), arrays([t.float() for t in wanted]), 0.01)


def test_branches_of_cond_are_selected() -> None:
    branches = lambda x: (x * 2, x.sin()), lambda x: (x.exp() + x.sum(), x + 1)
    model = Function(lambda x: torch.cond(x.sum() > 0, *branches, (x,)))
    found = capture(model, (torch.randn(2, 4),))
    for sign in (1, -1, 3):
        x = torch.rand(3, 4) * sign
        same(call(found, x), model(x))


def test_a_branch_of_cond_that_may_fail_is_not_computed_beside_the_other() -> None:
    model = Function(
        lambda x, i: torch.cond((i < 2).all(), lambda x, i: x[i], lambda x, i: x + i, (x, i))
    )
    with pytest.raises(CaptureError, match="cond holds a graph of its own"):
        capture(model, (torch.randn(4), torch.arange(4)))


def test_mapped_functions_and_checkpoints() -> None:
    class Mapped(Model):
        def forward(self, x):
            y = torch.vmap(lambda row: row * row.sum())(x)
            with torch.inference_mode():
                z = torch.utils.checkpoint.checkpoint(self.linear, y, use_reentrant=False)
            return z, torch.func.jvp(torch.sin, (x,), (y,))[1]

    model = Mapped()
    found = capture(model, (torch.randn(2, 4),))
    with torch.no_grad():
        same(call(found, x := torch.randn(3, 4)), model(x))


def test_gradients_are_refused() -> None:
    with pytest.raises(CaptureError, match="TensorWrapper"):
        capture(Function(torch.func.grad(lambda x: (x**2).sum())), (torch.randn(2, 4),))


def test_memory_behind_a_view_is_refused() -> None:
    x = torch.randn(2, 4)
    frames = Function(lambda x: (x * 2).as_strided((2, 3), (4, 1)))
    assert capture(frames, (x,)).graph.outputs[0].shape == (2, 3)
    with pytest.raises(CaptureError, match=r"as_strided reads .* index the tensor"):
        capture(Function(lambda x: x.t().as_strided((2, 3), (4, 1))), (x,))


def test_converting_a_layer_to_what_it_is_changes_nothing() -> None:
    class Converting(Model):
        def forward(self, x):
            if x.dim() > 1:  # which torch.fx cannot trace
                self.linear = self.linear.to(torch.float32)
            return self.linear.float().to("cpu")(x)

    model, x = Converting(), torch.randn(2, 4)
    with torch.no_grad():
        same(call(capture(model, (x,)), x), model(x))
