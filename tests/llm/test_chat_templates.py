"""Chat templates: the text that transformers makes, over templates as public models have them."""

import json
from pathlib import Path

import pytest
import tiny

from graphopt import errors
from graphopt.llm.generate.chat_template import RenderError, render, render_bounded
from graphopt.llm.generate.tokenizer import ChatFormat, Tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEMPLATES = {p.stem: p.read_text() for p in (Path(__file__).parent / "templates").glob("*.jinja")}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ASK, TELL = {"role": "user", "content": " Wie heißt <du>?\n"}, {"role": "system", "content": "Be "}
SAY = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTiny. "}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "123456789",
            "type": "function",
            "function": {"name": "look", "arguments": {"at": "'Köln' & <b>", "n": [1, 2.5, None]}},
        }
    ],
}
RESULT = {"role": "tool", "name": "look", "tool_call_id": "123456789", "content": '{"t": 3}'}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks <there>",
        "parameters": {
            "type": "object",
            "properties": {
                "at": {"type": "string", "description": "wo"},
                "n": {"type": "array", "items": {"type": ["integer", "number"]}},
                "how": {"type": "object"},
            },
            "required": ["at"],
        },
    },
}
CONVERSATIONS = {
    "question": {"messages": [ASK]},
    "system": {"messages": [TELL, ASK]},
    "turns": {"messages": [TELL, ASK, SAY, ASK, {**SAY, "content": "2"}, ASK]},
    "answered": {"messages": [ASK, SAY], "add_generation_prompt": False},
    "thought": {"messages": [ASK, {**SAY, "thinking": "so", "content": "x"}, ASK, SAY]},
    "quiet": {"messages": [ASK], "enable_thinking": False},
    "tools": {"messages": [TELL, ASK], "tools": [TOOL, TOOL]},
    "called": {"messages": [ASK, CALL, RESULT, RESULT, SAY, ASK], "tools": [TOOL]},
    "documents": {"messages": [ASK], "documents": [{"title": "der titel", "text": "a <b>"}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    "twice": {"messages": [ASK, ASK]},
    "nobody": {"messages": [{"role": "critic", "content": "no"}]},
}


@pytest.fixture(scope="module")
def plain():
    """A tokenizer of transformers that has special tokens, and no words worth mention."""
    built = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, "<unk>"))
    return tiny.transformers.PreTrainedTokenizerFast(tokenizer_object=built, **SPECIAL)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_text_is_that_of_transformers(plain, name):
    differ = []
    rendered = 0
    for label, given in CONVERSATIONS.items():
        given = {"add_generation_prompt": True, "tools": None, "documents": None, **given}
        messages = given["messages"]
        more = {key: value for key, value in given.items() if key != "messages"}
        try:
            wanted = plain.apply_chat_template(
                messages, chat_template=TEMPLATES[name], tokenize=False, **more
            )
        except Exception:
            wanted = None
        try:
            got = render(TEMPLATES[name], {**SPECIAL, **given})
        except RenderError:
            got = None
        rendered += wanted is not None
        if got != wanted:
            differ.append((label, got, wanted))
    assert not differ
    assert rendered >= 4  # of each template, and not only refusals


def test_the_process_gives_the_same(plain):
    given = {**SPECIAL, "tools": [TOOL], "documents": None, "add_generation_prompt": True}
    given["messages"] = CONVERSATIONS["called"]["messages"]
    assert render_bounded(TEMPLATES["qwen2"], given) == render(TEMPLATES["qwen2"], given)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(9**5) %}{% for j in range(9**5) %}{% endfor %}{% endfor %}", "long"),
        ("{{ 'x' * 10**10 }}", "memory"),
        ("{{ 'x' * 20000000 }}", "20000000 characters"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "calls itself"),
        ("{{ range(10**9) }}", "Range too big"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% if %}", "expression"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ raise_exception('not so') }}", "not so"),
    ],
)
def test_templates_that_blow_up_end_typed(template, reason):
    tokenizer = written(template)
    with pytest.raises(errors.ChatTemplateError, match=reason):
        tokenizer.encode_chat([ASK])


def written(template):
    """A tokenizer of single bytes."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    built = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(built.to_str(), ChatFormat(template, SPECIAL, ()))


def test_several_templates():
    tokenizer = written({"default": "plain", "tool_use": "tools", "rag": "{{ documents }}"})
    assert tokenizer.decode(tokenizer.encode_chat([ASK])) == "plain"
    assert tokenizer.decode(tokenizer.encode_chat([ASK], tools=[TOOL])) == "tools"
    with pytest.raises(errors.ChatTemplateError, match="none is the default"):
        written({"rag": "x"}).encode_chat([ASK])


@pytest.mark.parametrize("messages", [[], None, ["Hi"], "Hi", {"role": "user"}])
def test_messages_that_are_none(messages):
    for template in (None, "x"):
        with pytest.raises(errors.ChatTemplateError):
            written(template).encode_chat(messages)


def test_what_is_no_text():
    with pytest.raises(errors.TextError, match="surrogates"):
        written(None).encode("a\ud800")
    with pytest.raises(errors.TextError):
        written("{{ messages[0].content }}").encode_chat([{"role": "user", "content": "\ud800"}])
    with pytest.raises(errors.ChatTemplateError, match="types of JSON"):
        written("x").encode_chat([{"role": "user", "content": object()}])
    with pytest.raises(errors.ChatTemplateError, match="texts alone"):
        written(None).encode_chat([CALL])


def directory(folder, config=None, settings=None, generation=None, added=None):
    """A model directory without weights: what `read_tokenizer` reads."""
    built = tokenizers.Tokenizer.from_str(written(None).text)
    built.add_special_tokens(["<s>", "</s>", "<|eot_id|>"])
    built.save(str(folder / "tokenizer.json"))
    files = {"config": config, "tokenizer_config": settings, "generation_config": generation}
    for name, content in {**files, "added_tokens": added}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_every_end_of_a_turn_is_read(tmp_path):
    from graphopt.llm.generate.tokenizer import read_tokenizer

    decoder = {"259": {"content": "<call>", "special": True}, "256": {"content": "<s>"}}
    folder = directory(
        tmp_path,
        config={"eos_token_id": 3},
        settings={
            "eos_token": {"content": "</s>"},
            "eot_token": "<call>",
            "added_tokens_decoder": decoder,
        },
        generation={"eos_token_id": [5, 6]},
        added={"<more>": 260},
    )
    tokenizer = read_tokenizer(folder)
    # config, generation config, </s>, <|eot_id|> by its name, <call>, which stands beside
    assert tokenizer.chat.ends == (3, 5, 6, 257, 258, 259)
    assert tokenizer.encode("<call>x<more>")[::2] == [259, 260]
    assert tokenizer.chat.special == {"eos_token": "</s>"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": {"eos_token_id": "x"}},
        {"generation": {"eos_token_id": [1, -1]}},
        {"config": [1]},
        {"settings": {"eos_token": 3}},
        {"settings": {"chat_template": [{"name": "default"}]}},
        {"settings": {"chat_template": 3}},
        {"settings": {"added_tokens_decoder": {"999": {"content": "<far>"}}}},
        {"settings": {"added_tokens_decoder": {"x": {"content": "<far>"}}}},
        {"added": {"<s>": 3}},
    ],
)
def test_directories_that_make_no_sense(tmp_path, wrong):
    from graphopt.llm.generate.tokenizer import read_tokenizer

    with pytest.raises(errors.ModelFileError):
        read_tokenizer(directory(tmp_path, **wrong))
