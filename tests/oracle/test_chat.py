"""Chat templates against transformers' apply_chat_template: the text and the ids are equal."""
import datetime
import json
import os
import pathlib
import shutil

import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import missing

CHATML = """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']
 + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# Each is written in the manner of a family of models.
FAMILIES = {
    "chatml": CHATML,
    "chatml with a system message of its own": """{% for message in messages -%}
{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You answer.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}""",
    "llama 2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}
{%- set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}
{%- set system_message = false %}{% endif %}{% for message in loop_messages %}
{%- if loop.index0 == 0 and system_message != false %}
{%- set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{%- else %}{% set content = message['content'] %}{% endif %}
{%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "mistral": """{%- set ns = namespace(index=0) %}{{ bos_token }}
{%- for m in messages if m.role != "system" %}
    {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate, not " ~ m.role) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if m.role == "user" %}{{- "[INST]" + (" " if loop.first else "") + m.content + "[/INST]" }}
    {%- else %}{{- m.content|trim + eos_token }}{%- endif %}
{%- endfor %}""",
    "llama 3.2": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{#- The system message goes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system<|end|>\\n\\nToday: " + date_string + "\\n\\n" }}{{- system_message }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}{{ message.tool_calls | tojson(indent=4) }}
    {%- endif %}
{%- endfor %}""",
    "phi": """{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|system|>' + message['content']
 + '<|end|>'}}{% elif (message['role'] == 'user') %}{{'<|user|>' + message['content'] + '<|end|>'}}
{%- elif not message['role'] in ['user', 'system'] -%}{{'<|assistant|>' + message['content'] + '<|end|>'}}
{%- endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% else %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
""",
    "with marks of the assistant's words": """{% for m in messages %}{{ '<' ~ m.role ~ '>' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}
{%- else %}{{ m.content }}{% endif %}{% endfor %}""",
}

# Parts of the language, in turn.
LANGUAGE = [
    "{{ messages[-1].content[::-1] }}|{{ messages[0].content[1:4] }}|{{ 'abc'[5] }}|{{ messages[9] }}",
    "{% for m in messages %}{{ loop.index }}{{ loop.revindex }}{{ loop.length }}{{ loop.last }}"
    "{{ loop.previtem.role if not loop.first }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v|length }},{% else %}none{% endfor %}",
    "{% for x in [] %}{% else %}empty{% endfor %}{% for c in 'aé b' %}[{{ c }}]{% endfor %}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 + 4 * -1 }} {{ 1.5 + 1 }}",
    "{{ 1 < 2 < 3 }}{{ 1 == 1.0 }}{{ 'a' < 'b' }}{{ 'a' in 'bab' }}{{ 3 not in [1, 2] }}{{ not true or true }}",
    "{{ none }}{{ nothing }}{{ true }}{{ nothing is defined }}{{ nothing|default('d') }}{{ ''|default('e', true) }}",
    "{{ 'a,b,,c'.split(',')|join('+') }} {{ ' a  b '.split()|join('+') }} {{ 'a,b,c'.split(',', 1)|last }}",
    "{{ '  x y '.strip() }}|{{ 'xxay'.lstrip('x') }}|{{ 'ab'.rstrip('b') }}|{{ 'aXb'|lower|upper|title }}",
    "{{ 'hello wORLD'|capitalize }} {{ 'hello wORLD-it'.title() }} {{ 'a-b-c'|replace('-', '+') }}",
    "{% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% set c = i %}{% endfor %}"
    "{{ ns.a }}{{ ns.b }}{{ c is defined }}{% for i in range(2, 5) %}{{ i }}{% endfor %}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x|length }}{{ x }}",
    "{% macro f(a, b='B') %}<{{ a }}{{ b }}>{% endmacro %}{{ f(1) }}{{ f(2, b='c') }}{{ f('x', 3) }}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{{ messages|map(attribute='role')|join(' ') }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
    "{{ messages|rejectattr('role', 'in', ['user'])|map(attribute='content')|first }}",
    "{{ messages|tojson }}{{ {'a': [1, 2.5, none, true, 'q\"\\n']}|tojson }}",
    "{{ 'é' ~ 1 ~ none ~ 2.0 }}{{ 'a' 'b' }}{{ \"it's\" }}{{ '\\t\\x41\\u00e9\\q' }}",
    "a\n  {% if true %}\n  b\n  {%- endif %}\n\n  {{ 'c' }}\n  {# note #}\n d {%+ if true %}e{% endif +%}\n f\n",
    "   {% if true -%}   \n x {{- 'y' -}} \n z {%- endif %} \n {#- c -#} w\n\n",
    "{{ messages[0]['content'] is string }}{{ messages is sequence }}{{ messages[0] is mapping }}{{ 3 is odd }}"
    "{{ 4 is even }}{{ 1 is number }}{{ none is none }}{{ x is not defined }}{{ 'a' is in 'abc' }}{{ 2 is eq 2 }}",
    "{{ messages[0].get('content', '') }}{{ messages[0].get('nothing') }}{{ 'abc'.startswith('ab') and 'x' or 'y' }}",
    "{{ [1, 2] + [3] == [1, 2, 3] }}{{ 'ab' * 3 }}{{ '12'|int + 1 }}{{ (1)|string|length }}",
]

CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "  What is 2+2?\n"}, {"role": "assistant", "content": " 4. "}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Erzähl é 😀 mir"},
     {"role": "assistant", "content": "Ja"}, {"role": "user", "content": "<|im_end|> x"},
     {"role": "assistant", "content": "<think>\nhm\n</think>\n\nNein, \"so\" nicht\\n."}],
]


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


class Chat:
    """A folder with a template: nybble's and transformers' rendering of conversations."""

    loaded = {}  # transformers' tokenizers by the folder that they come from

    def __init__(self, nybble, source, folder, template=None):
        self.nybble, self.folder, self.template = nybble, folder, template
        if not folder.is_dir():
            shutil.copytree(source, folder)
        if template is not None:
            (folder / "chat_template.jinja").write_bytes(template.encode())
        if source not in self.loaded:
            self.loaded[source] = transformers.AutoTokenizer.from_pretrained(source)
        self.auto = self.loaded[source]

    def ours(self, conversations, ok=True):
        lines = "".join(json.dumps({"messages": c}) + "\n" for c in conversations)
        (self.folder / "input.jsonl").write_text(lines)
        done = self.nybble("tokenize", self.folder, "--chat", "--json",
                           self.folder / "input.jsonl", ok=ok)
        return json.loads(done.stdout) if ok else done

    def theirs(self, conversation, **more):
        return self.auto.apply_chat_template(conversation, chat_template=self.template, **more)

    def compare(self, conversations):
        """Text and ids of all; conversations that the template refuses are refused by both."""
        fine = []
        for c in conversations:
            try:
                fine.append((c, self.theirs(c, tokenize=False)))
            except Exception as error:
                failed = self.ours([c], ok=False)
                assert failed.returncode == 1, (c, error)
        got = self.ours([c for c, _ in fine])
        assert got["text"] == [text for _, text in fine]
        assert got["ids"] == [self.theirs(c, tokenize=True, return_dict=False) for c, _ in fine]
        return len(fine)


@pytest.fixture(autouse=True)
def fixed_day(monkeypatch):
    monkeypatch.setattr(transformers.utils.chat_template_utils, "datetime", Fixed)


@pytest.fixture(scope="session")
def source(stories, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "model"
    folder.mkdir()
    for name in ("tokenizer.model", "config.json"):
        shutil.copy(stories / name, folder / name)
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}))
    return folder


@pytest.mark.parametrize("name", list(FAMILIES))
def test_families(nybble, source, tmp_path, name):
    count = Chat(nybble, source, tmp_path / "model", FAMILIES[name]).compare(CONVERSATIONS)
    print(f"{count} conversations equal")
    assert count >= 2


@pytest.mark.parametrize("i", range(len(LANGUAGE)))
def test_language(nybble, source, tmp_path, i):
    assert Chat(nybble, source, tmp_path / "model", LANGUAGE[i]).compare(CONVERSATIONS) == 3


@pytest.mark.real
@pytest.mark.parametrize("name", ["llama3", "gemma3", "qwen3", "deepseek_v3"])
def test_real_templates(nybble, tmp_path, name):
    root = pathlib.Path(os.environ.get("NYB_MODELS", "~/.cache/nybble-models")).expanduser()
    folder = root / "tokenizers" / name
    if not folder.is_dir():
        missing(f"{folder} is not there: run tests/tools/fetch_tokenizers.py {name}")
    assert Chat(nybble, folder, tmp_path / "model").compare(CONVERSATIONS) == 3


def messages():
    words = st.lists(st.sampled_from([" ", "\n", "a", "é", "<s>", "it's", "{{ x }}", "</think>", "12",
                                      "<|im_end|>", "\"", "\\", "你好"]), max_size=8).map("".join)
    roles = st.sampled_from(["user", "assistant", "system"])
    return st.lists(st.fixed_dictionaries({"role": roles, "content": words}), min_size=1, max_size=6)


@settings(max_examples=3, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(conversations=st.lists(messages(), min_size=20, max_size=40))
@pytest.mark.parametrize("name", ["llama 2", "zephyr", "llama 3.2"])
def test_random_conversations(nybble, source, tmp_path, name, conversations):
    chat = Chat(nybble, source, tmp_path / name, FAMILIES[name])
    fine = [c for c in conversations if c[0]["role"] != "system" or len(c) > 1]
    chat.compare(fine)


def test_marks_are_transformers(nybble, source, tmp_path):
    """With {% generation %} the marked tokens are those of transformers."""
    chat = Chat(nybble, source, tmp_path / "model", FAMILIES["with marks of the assistant's words"])
    talks = [c for c in CONVERSATIONS if len(c) > 1]
    got = chat.ours(talks)["assistant"]
    want = [chat.theirs(c, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            ["assistant_masks"] for c in talks]
    assert got == want and sum(map(sum, got)) > 5


def test_marks_without_generation(nybble, source, tmp_path):
    """Elsewhere the tokens marked spell what the assistant says."""
    chat = Chat(nybble, source, tmp_path / "model", CHATML)
    got = chat.ours(CONVERSATIONS)
    for conversation, ids, marks in zip(CONVERSATIONS, got["ids"], got["assistant"]):
        said = [m["content"] for m in conversation if m["role"] == "assistant"]
        runs, before = [], 0
        for token, mark in zip(ids, marks):
            if mark and not before:
                runs.append([])
            if mark:
                runs[-1].append(token)
            before = mark
        assert [chat.auto.decode(r).strip() for r in runs] == [s.strip() for s in said]


def test_other_forms(nybble, source, tmp_path):
    chat = Chat(nybble, source, tmp_path / "model", CHATML)
    lines = [json.dumps(CONVERSATIONS[1]), "", json.dumps(
        {"conversations": [{"from": "human", "value": "  What is 2+2?\n"}, {"from": "gpt", "value": " 4. "}]})]
    (tmp_path / "forms.jsonl").write_text("\r\n".join(lines))
    done = nybble("tokenize", chat.folder, "--chat", "--json", tmp_path / "forms.jsonl")
    text = json.loads(done.stdout)["text"]
    assert len(text) == 2 and text[0] == text[1] == chat.theirs(CONVERSATIONS[1], tokenize=False)


REFUSED = {
    "{% include 'x' %}": "'include'",
    "{{ messages|shuffle }}": "'shuffle'",
    "{{ messages is hidden }}": "'hidden'",
    "{{ 'a'.encode() }}": "'encode'",
    "{{ cycler('a') }}": "'cycler'",
    "{{ (1, 2) }}": "','",
    "{{ messages }}": "printing a list",
    "{{ 'a' + 1 }}": "'+' of a string and a whole number",
    "{{ nothing.more }}": "'more' is asked of an undefined value",
    "{{ 'x": "line 1",
    "{% for m in messages %}": "'endfor'",
    "\n\n{% if x %}{{ 1 }": "line 3",
    "{{ raise_exception('no ' ~ 'way') }}": "refuses the messages: no way",
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}":
        "takes too much",
    "{% set x = 'a' %}{% for a in range(300) %}{% set y = 'a' * 1000000 %}{% endfor %}": "takes too much",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "takes too much",
    "(" * 3 + "{{ " + "(" * 300 + "1" + ")" * 300 + " }}": "too deep",
}


@pytest.mark.parametrize("template", list(REFUSED))
def test_refusals(nybble, source, tmp_path, template):
    failed = Chat(nybble, source, tmp_path / "model", template).ours(CONVERSATIONS[:1], ok=False)
    assert failed.returncode == 1 and REFUSED[template] in failed.stderr, failed.stderr


def test_no_template(nybble, source):
    done = nybble("tokenize", source, "--chat", "--text", "[]", ok=False)
    assert done.returncode == 1 and "has no chat template" in done.stderr
