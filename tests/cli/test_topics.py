"""`nybble help TOPIC`: tables of what is supported, and the pages that hold them."""
import importlib.util
import json

import pytest

import conftest

TOPICS = {"families": {"families", "wrappers", "words"},
          "formats": {"methods", "layouts", "gguf-types", "gguf-architectures", "strangers"},
          "tokenizers": {"parts", "cuts"}}

spec = importlib.util.spec_from_file_location("tables", conftest.ROOT / "tools" / "tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


def read(nybble, topic):
    found = json.loads(nybble("help", topic, "--json").stdout)
    assert found["schema"] == "nybble.help/1" and found["topic"] == topic
    return {table["name"]: table for table in found["tables"]}


@pytest.mark.parametrize("topic", TOPICS)
def test_tables_are_whole(nybble, topic):
    found = read(nybble, topic)
    assert found.keys() == TOPICS[topic]
    text = nybble("help", topic).stdout
    for table in found.values():
        assert len(table["rows"]) >= 2 and table["about"] + ":" in text
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
        assert all(cell in text for row in table["rows"] for cell in row)


def test_rows_are_those_of_the_program(nybble):
    rows = {row[1]: row for row in read(nybble, "families")["families"]["rows"]}
    assert rows["gemma2"][2:6] == ["RMS, 1 + gain", "rotary", "separate", ""]
    assert rows["gpt2"][2] == "layer" and rows["mixtral"][5] == "yes"
    types = {row[0]: row[4:] for row in read(nybble, "formats")["gguf-types"]["rows"]}
    assert types["Q4_K"] == ["yes", "yes", "yes"] and types["F16"] == ["yes", "yes", ""]
    assert types["IQ4_NL"] == ["yes", "", ""] and types["IQ2_XS"] == ["", "", ""]
    parts = dict(read(nybble, "tokenizers")["parts"]["rows"])
    assert "Sequence" in parts["decoder"] and parts["model"] == "BPE, WordPiece, Unigram"


def test_pages_hold_the_tables(program):
    assert tables.differences(program, conftest.ROOT / "docs", write=False) == []


def test_a_page_that_differs_is_named(program, tmp_path):
    for name in tables.PAGES.values():
        text = (conftest.ROOT / "docs" / name).read_text()
        (tmp_path / name).write_text(text.replace("| `BPE`", "| `BPF`").replace("`gpt2`", "`gpt3`"))
    found = tables.differences(program, tmp_path, write=True)
    assert "docs/tokenizers.md: table 'parts'" in found and "docs/families.md: table 'families'" in found
    assert tables.differences(program, tmp_path, write=False) == []


def test_a_word_that_is_nothing_is_refused(nybble):
    done = nybble("help", "familys", ok=False)
    assert done.returncode == 2 and "no command 'familys'" in done.stderr
