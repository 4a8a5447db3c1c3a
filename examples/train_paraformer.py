"""Train a small Paraformer on speech made by espeak-ng, with FunASR's own classes.

python examples/train_paraformer.py --output model [--work-dir cache] [--threads 2]

The result is a model directory as FunASR lays it out. graphopt ships the one of the default
settings in graphopt/zoo/recognizer/model. `--small` runs the whole way in less than a minute and
learns nothing. Speech is kept in the work directory and used again by the next run.
"""

import argparse
import json
import math
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from graphopt.dependencies import keep_process_settings
from graphopt.zoo.recognizer import phrases, speech

with keep_process_settings():
    from funasr.frontends.wav_frontend import WavFrontend, apply_lfr
    from funasr.models.paraformer.model import Paraformer
    from funasr.tokenizer.char_tokenizer import CharTokenizer
    from funasr.train_utils.set_all_random_seed import set_all_random_seed

MELS, STACKED, HOP = 80, 7, 6
CONFIG: dict[str, Any] = {
    "model": "Paraformer",
    "model_conf": {
        "ctc_weight": 0.0,
        "lsm_weight": 0.1,
        "length_normalized_loss": True,
        "predictor_weight": 1.0,
        "predictor_bias": 0,
        "sampling_ratio": 0.0,
    },
    "encoder": "SANMEncoder",
    "encoder_conf": {
        "output_size": 128,
        "attention_heads": 4,
        "linear_units": 512,
        "num_blocks": 5,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    },
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {
        "attention_heads": 4,
        "linear_units": 384,
        "num_blocks": 2,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "self_attention_dropout_rate": 0.0,
        "src_attention_dropout_rate": 0.0,
        "att_layer_num": 2,
        "kernel_size": 11,
        "sanm_shfit": 0,
    },
    "predictor": "CifPredictorV2",
    "predictor_conf": {
        "idim": 128,
        "threshold": 1.0,
        "l_order": 1,
        "r_order": 1,
        "tail_threshold": 0.45,
    },
    "frontend": "WavFrontend",
    "frontend_conf": {
        "fs": speech.SAMPLE_RATE,
        "window": "hamming",
        "n_mels": MELS,
        "frame_length": 25,
        "frame_shift": 10,
        "lfr_m": STACKED,
        "lfr_n": HOP,
        "dither": 0.0,
    },
    # No masks along time: a hidden token is still counted, so the predictor would count too many.
    "specaug": "SpecAugLFR",
    "specaug_conf": {
        "apply_time_warp": False,
        "apply_freq_mask": True,
        "freq_mask_width_range": [0, 16],
        "lfr_rate": HOP,
        "num_freq_mask": 1,
        "apply_time_mask": False,
    },
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}
CTC_WEIGHT = 0.3  # a second loss on the encoder that finds alignments early; not saved
PEAK_RATE, WARM_UP = 1.5e-3, 300
SMALL = {"utterances": 48, "steps": 3, "batch": 8}


@dataclass(frozen=True)
class Sample:
    """Log mel energies of an utterance, f32[frames of 10 ms, 80], and its token ids."""

    mels: torch.Tensor
    tokens: torch.Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="model directory to write")
    parser.add_argument("--work-dir", type=Path, help="where speech is kept between runs")
    parser.add_argument("--utterances", type=int, default=9000)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help=f"the same as {SMALL}")
    settings = parser.parse_args()
    if settings.small:
        vars(settings).update(SMALL)
    with tempfile.TemporaryDirectory() as scratch:
        run(settings, Path(scratch))


def run(settings: argparse.Namespace, scratch: Path) -> None:
    output = settings.output or scratch / "model"
    work = settings.work_dir or scratch
    output.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    set_all_random_seed(settings.seed)
    write_vocabulary(output)
    samples = load_samples(output, work, settings)
    mean, scale = feature_statistics(samples)
    model = build_model(CTC_WEIGHT)
    print(f"{len(samples)} utterances, {parameters(model)} parameters, {spent(started)}")
    train(model, samples, (mean, scale), settings, started)
    save(output, model, mean, scale)
    print(f"wrote {output if settings.output else 'and dropped'}, {spent(started)}")


def spent(started: float) -> str:
    """Time since ``started`` and CPU time of this process and its children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return f"{(time.monotonic() - started) / 60:.1f} min, {cpu / 60:.1f} CPU min"


# Speech


def load_samples(output: Path, work: Path, settings: argparse.Namespace) -> list[Sample]:
    """Training speech from the cache, made first if it is not there."""
    path = work / f"speech-{settings.utterances}-{settings.seed}.npz"
    if not path.exists():
        make_speech(path, settings)
    tokenizer = CharTokenizer(
        token_list=str(output / "tokens.json"),
        seg_dict=str(output / "seg_dict"),
        **CONFIG["tokenizer_conf"],
    )
    with np.load(path) as file:
        frames, lengths, texts = file["frames"], file["lengths"], file["texts"]
    mels = np.split(frames, np.cumsum(lengths)[:-1])
    return [
        Sample(torch.from_numpy(m.astype(np.float32)), torch.tensor(tokenizer.encode(str(text))))
        for m, text in zip(mels, texts, strict=True)
    ]


def make_speech(path: Path, settings: argparse.Namespace) -> None:
    """Say random phrases in every training voice, half of them in noise, and keep features."""
    rng = np.random.default_rng(settings.seed)
    variants = speech.TRAINING_VARIANTS
    said = [
        speech.draw_utterance(rng, variants[i % len(variants)]) for i in range(settings.utterances)
    ]
    frontend = WavFrontend(**{**CONFIG["frontend_conf"], "lfr_m": 1, "lfr_n": 1})

    def features(index: int) -> np.ndarray:
        own = np.random.default_rng((settings.seed, index))
        signal = speech.synthesize(said[index]) * 10 ** (-own.uniform(0, 20) / 20)
        if own.random() < 0.5:
            signal = speech.add_noise(signal.astype(np.float32), own.uniform(5, 40), own)
        wave = torch.from_numpy(signal.astype(np.float32))[None]
        return frontend(wave, torch.tensor([wave.shape[1]]))[0][0].numpy().astype(np.float16)

    with ThreadPoolExecutor(settings.threads) as pool:
        mels = list(pool.map(features, range(len(said))))
    np.savez(
        path,
        frames=np.concatenate(mels),
        lengths=[len(m) for m in mels],
        texts=[u.text for u in said],
    )


def feature_statistics(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / deviation of each of the stacked features, f32[560] each."""
    stacked = torch.cat([apply_lfr(s.mels, STACKED, HOP) for s in samples]).double()
    return stacked.mean(0).float(), (1 / stacked.std(0)).float()


# Training


def build_model(ctc_weight: float) -> Paraformer:
    conf = {**CONFIG, **CONFIG["model_conf"], "ctc_weight": ctc_weight}
    return Paraformer(input_size=MELS * STACKED, vocab_size=len(phrases.token_list()), **conf)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("ctc."))


def train(
    model: Paraformer,
    samples: list[Sample],
    statistics: tuple[torch.Tensor, torch.Tensor],
    settings: argparse.Namespace,
    started: float,
) -> None:
    """Adam with a linear warm-up and a cosine decay to zero."""
    optimizer = torch.optim.AdamW(
        model.parameters(), PEAK_RATE, (0.9, 0.98), weight_decay=0.01, fused=True
    )
    warm_up = min(WARM_UP, settings.steps)

    def rate(step: int) -> float:
        decay = max(0, step - warm_up) / max(1, settings.steps - warm_up)
        return min(1, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * decay))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    source = batches(samples, statistics, settings)
    for step in range(settings.steps):
        loss, stats, _ = model(*next(source))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == settings.steps - 1:
            values = " ".join(f"{k} {float(stats[k]):.3f}" for k in ("loss", "acc", "loss_pre"))
            print(f"step {step}: {values}, {spent(started)}", flush=True)


def batches(
    samples: list[Sample],
    statistics: tuple[torch.Tensor, torch.Tensor],
    settings: argparse.Namespace,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Endless batches of utterances of about one length: speech, lengths, tokens, lengths."""
    order = random.Random(settings.seed)
    rng = np.random.default_rng(settings.seed)
    mean, scale = statistics
    while True:
        near = sorted(samples, key=lambda s: len(s.mels) * order.uniform(0.8, 1.2))
        groups = [near[i : i + settings.batch] for i in range(0, len(near), settings.batch)]
        order.shuffle(groups)
        for group in groups:
            inputs = [(apply_lfr(vary(s.mels, rng), STACKED, HOP) - mean) * scale for s in group]
            tokens = [s.tokens for s in group]
            yield (
                torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True),
                torch.tensor([len(x) for x in inputs]),
                torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1),
                torch.tensor([len(t) for t in tokens]),
            )


def vary(mels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another speaker at another pace: both axes scaled, and another loudness."""
    pace, tract = rng.uniform(0.85, 1.2), rng.uniform(0.88, 1.12)
    frames = max(1, round(len(mels) * pace))
    rows = torch.linspace(0, len(mels) - 1, frames)
    columns = (torch.arange(MELS) * tract).clamp(max=MELS - 1)
    for axis, position in ((0, rows), (1, columns)):
        low = position.floor().long()
        high = (low + 1).clamp(max=mels.shape[axis] - 1)
        weight = (position - low)[:, None] if axis == 0 else position - low
        mels = torch.lerp(mels.index_select(axis, low), mels.index_select(axis, high), weight)
    return mels + rng.normal(0, 1.0)


# The model directory


def write_vocabulary(output: Path) -> None:
    tokens = json.dumps(phrases.token_list(), ensure_ascii=False, indent=0)
    (output / "tokens.json").write_text(tokens + "\n", encoding="utf-8")
    lines = [f"{word} {pieces}" for word, pieces in phrases.segmentation().items()]
    (output / "seg_dict").write_text("\n".join(lines) + "\n", encoding="utf-8")


def save(output: Path, model: Paraformer, mean: torch.Tensor, scale: torch.Tensor) -> None:
    """Configuration, feature statistics in Kaldi's text form, and weights as bf16."""
    text = yaml.safe_dump(CONFIG, sort_keys=False)
    (output / "config.yaml").write_text(text, encoding="utf-8")
    size = MELS * STACKED
    lines = ["<Nnet>", f"<Splice> {size} {size}", "[ 0 ]"]
    for tag, values in (("<AddShift>", -mean), ("<Rescale>", scale)):
        numbers = " ".join(f"{v:.6g}" for v in values.tolist())
        lines += [f"{tag} {size} {size}", f"<LearnRateCoef> 0 [ {numbers} ]"]
    (output / "am.mvn").write_text("\n".join([*lines, "</Nnet>"]) + "\n")
    weights = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if not name.startswith("ctc.")
    }
    torch.save(weights, output / "model.pt")


if __name__ == "__main__":
    main()
