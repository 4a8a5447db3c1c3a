"""The zoo's models: reproducible, in a realistic range, and FunASR's own behaviour."""

import logging
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt import dependencies, extras  # noqa: E402
from graphopt.errors import MissingDependencyError, UnknownModelError  # noqa: E402
from graphopt.zoo import catalog, fsmn_vad, paraformer  # noqa: E402


@pytest.fixture(scope="module")
def small() -> tuple[torch.nn.Module, torch.nn.Module]:
    return paraformer.paraformer_large(blocks=6, decoder_blocks=3)


def test_paraformer_has_its_official_size() -> None:
    encoder, decoder = paraformer.paraformer_large()
    parts = [(encoder, 158.0), (decoder, 61.3)]  # millions of parameters
    for module, millions in parts:
        count = sum(p.numel() for p in module.parameters()) / 1e6
        assert count == pytest.approx(millions, abs=0.1)
        assert not any(m.training for m in module.modules())
    assert len(encoder.model.encoders0) + len(encoder.model.encoders) == 50
    assert len(decoder.model.decoders) == 16


def test_equal_seeds_give_equal_weights(small: tuple) -> None:
    again = paraformer.paraformer_large(blocks=6, decoder_blocks=3)
    other = paraformer.paraformer_large(blocks=6, decoder_blocks=3, seed=1)
    for one, two, three in zip(small, again, other, strict=True):
        states = one.state_dict(), two.state_dict(), three.state_dict()
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
        assert not any(torch.equal(states[0][k], states[2][k]) for k in states[0])


@pytest.mark.parametrize("blocks", [4, 50])
def test_activations_stay_in_range_at_depth(blocks: int) -> None:
    encoder, _ = paraformer.paraformer_large(blocks=blocks, decoder_blocks=1)
    spreads = []
    for layer in [*encoder.model.encoders0, *encoder.model.encoders]:
        layer.register_forward_hook(lambda _m, _i, out: spreads.append(float(out[0].std())))
    hidden, _ = encoder(*paraformer.example_inputs(frames=40))
    assert all(1.0 < spread < 5.0 for spread in spreads) and len(spreads) == blocks
    assert 0.9 < float(hidden.std()) < 1.5
    # Outlier channels: some are far above the others, as in trained models.
    channels = hidden.abs().amax(dim=(0, 1))
    assert float(channels.max() / channels.median()) > 3


def test_no_denormals_at_a_long_input(small: tuple) -> None:
    encoder, decoder = small
    found = []

    def count(_module: object, _inputs: object, out: object) -> None:
        tensor = out[0] if isinstance(out, tuple) else out
        found.append(int(((tensor != 0) & (tensor.abs() < 1.2e-38)).sum()))

    for module in [*encoder.modules(), *decoder.modules()]:
        module.register_forward_hook(count)
    memory, lengths = encoder(*paraformer.example_inputs(frames=800))
    decoder(*paraformer.decoder_inputs(memory, lengths, tokens=100))
    for module in [*encoder.modules(), *decoder.modules()]:
        module._forward_hooks.clear()
    assert found and sum(found) == 0


def test_example_batch_holds_the_single_utterance(small: tuple) -> None:
    single, one = paraformer.example_inputs(frames=30)
    batch, lengths = paraformer.example_inputs(frames=30, batch=3)
    assert one.tolist() == [30] and lengths.tolist() == [30, 25, 20]
    assert lengths.dtype == torch.int32
    assert torch.equal(batch[:1], single)
    assert not batch[1, 25:].any() and batch[1, :25].all()
    memory, memory_lengths = small[0](batch, lengths)
    hs, hlens, embeds, tokens = paraformer.decoder_inputs(memory, memory_lengths, tokens=12)
    assert tokens.tolist() == [12, 10, 8] and not embeds[2, 8:].any()
    assert small[1](hs, hlens, embeds, tokens)[0].shape == (3, 12, 8404)


def test_building_is_quiet_and_leaves_settings_alone(capfd: pytest.CaptureFixture) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.filters[:]
    auto_model = fsmn_vad.load_vad()
    fsmn_vad.vad_segments(auto_model, fsmn_vad.recordings()[0])
    paraformer.paraformer_large(blocks=2, decoder_blocks=1)
    assert (root.handlers, root.level, warnings.filters) == before
    assert capfd.readouterr().out == ""


def test_27_recordings() -> None:
    recordings = fsmn_vad.recordings()
    assert len(recordings) == 27 and len({r.parent.name for r in recordings}) == 9


def test_replaced_encoder_is_called_and_taken_back() -> None:
    auto_model = fsmn_vad.load_vad()
    own = auto_model.model.encoder
    wav = fsmn_vad.recordings()[3]
    before = fsmn_vad.vad_segments(auto_model, wav)
    assert before
    caches = []

    def through(feats: torch.Tensor, cache: dict) -> torch.Tensor:
        caches.append(sorted(cache))
        return own(feats, cache)

    with fsmn_vad.replace_encoder(auto_model, through):
        assert fsmn_vad.vad_segments(auto_model, wav) == before
    assert caches and all(names == [f"cache_layer_{i}" for i in range(4)] for names in caches)

    def silent(feats: torch.Tensor, cache: dict) -> torch.Tensor:
        scores = torch.full((*feats.shape[:2], 248), 1e-6)
        scores[..., 0] = 1 - 1e-6  # silence
        return scores

    with fsmn_vad.replace_encoder(auto_model, silent):
        assert fsmn_vad.vad_segments(auto_model, wav) != before
    assert auto_model.model.encoder is own


def test_empty_cache_means_the_beginning() -> None:
    auto_model = fsmn_vad.load_vad()
    encoder = auto_model.model.encoder
    feats = fsmn_vad.recorded_features(auto_model, fsmn_vad.recordings()[0])
    first, cache = fsmn_vad.encoder_inputs(auto_model, feats)
    with torch.inference_mode():
        np.testing.assert_array_equal(encoder(first, cache), encoder(feats, {}))
    assert all(bool(state.any()) for state in cache.values())


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError, match=r"needs.*'openvino_x'.*pip install x"):
        monkeypatch.setitem(extras.APART, "openvino_x", "pip install x")
        dependencies.require("openvino_x", "this")


def test_catalog(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_user_model.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Linear(2, 3).eval(), (torch.ones(1, 2),)\n"
        "def wrong():\n    return 1\n"
    )
    monkeypatch.chdir(tmp_path)
    model, inputs = catalog.build_model("some_user_model:build")
    assert model(*inputs).shape == (1, 3)
    for name in ("vad", "some_user_model:none", "no_such_module:f", "some_user_model:wrong"):
        with pytest.raises(UnknownModelError, match="module:function"):
            catalog.build_model(name)
    for name in ("fsmn-vad", "paraformer-decoder"):
        model, inputs = catalog.build_model(name)
        model(*inputs)
