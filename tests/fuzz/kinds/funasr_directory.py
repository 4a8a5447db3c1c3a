"""Model directories of FunASR, read and built."""

import json
import shutil
from pathlib import Path

from fuzz.files import Kind
from mutations import Mutation, accidents, json_values, of, text, text_bytes, yaml_values

from graphopt.funasr.directory import build_model, read_directory
from graphopt.funasr.package import describe
from graphopt.zoo.recognizer import MODEL

LISTING, CONFIG, TOKENS = "configuration.json", "config.yaml", "tokens.json"
_NAMES = {
    "config": CONFIG,
    "init_param": "model.pt",
    "tokenizer_conf": {"token_list": TOKENS, "seg_dict_file": "seg_dict"},
    "frontend_conf": {"cmvn_file": "am.mvn"},
}


def make(path: Path) -> None:
    shutil.copytree(MODEL, path)
    listing = {"framework": "pytorch", "file_path_metas": _NAMES}
    (path / LISTING).write_text(json.dumps(listing), encoding="utf-8")


def use(path: Path) -> None:
    directory = read_directory(path)
    describe(directory)
    build_model(directory)


KIND = Kind(
    make,
    [
        *accidents(is_refused=False),
        *[Mutation("settings", yaml_values(CONFIG))] * 6,
        *[Mutation("names", json_values(LISTING))] * 3,
        *[Mutation("tokens", json_values(TOKENS))] * 2,
        *[Mutation("text", text(n)) for n in (CONFIG, LISTING, TOKENS, "am.mvn")],
        *[Mutation("bytes", text_bytes(n)) for n in (CONFIG, LISTING, TOKENS, "am.mvn")],
        Mutation("bytes", of("seg_dict", lambda p, rng: p.write_bytes(rng.randbytes(99)))),
    ],
    use,
)
