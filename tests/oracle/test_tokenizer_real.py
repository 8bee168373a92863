"""Token ids of well-known models' tokenizer files, and of every form a tokenizer comes in, against
the tokenizers library, transformers and sentencepiece: all equal, there is no tolerance."""
import json
import os
import pathlib
import shutil

import pytest
import sentencepiece
import tokenizers
import transformers

from conftest import missing
from test_tokenizer import Ours, assert_equal, compare, compare_sentencepiece, edges, wiki  # noqa: F401


def real(name):
    folder = pathlib.Path(os.environ.get("NYB_MODELS", "~/.cache/nybble-models")).expanduser()
    folder = folder / "tokenizers" / name
    if not folder.is_dir():
        missing(f"{folder} is not there: run tests/tools/fetch_tokenizers.py {name}")
    return folder


def compare_backend(nybble, tmp_path, folder, wiki, texts):
    t = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    want = t.encode(wiki).ids
    assert_equal("ids of the whole text", [wiki], Ours(nybble, folder, tmp_path).encode([wiki], True),
                 [want])
    return len(want) + compare(Ours(nybble, folder, tmp_path),
                   lambda x, special: t.encode(x, add_special_tokens=special).ids,
                   lambda ids, skip: t.decode(ids, skip_special_tokens=skip), texts,
                   t.get_vocab_size())


def compare_auto(nybble, tmp_path, folder, texts):
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    return compare(Ours(nybble, folder, tmp_path),
                   lambda t, special: auto.encode(t, add_special_tokens=special),
                   lambda ids, skip: auto.decode(ids, skip_special_tokens=skip), texts, len(auto))


def folder_of(tmp_path, name, **files):
    """A copy of a real tokenizer's files with others beside them."""
    folder = tmp_path / "model"
    shutil.copytree(real(name), folder)
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.real
@pytest.mark.parametrize("name", ["llama3", "llama2", "gemma3", "qwen3", "deepseek_v3", "gptoss"])
def test_tokenizer_json(nybble, name, wiki, edges, tmp_path):
    print(f"{compare_backend(nybble, tmp_path, real(name), wiki, edges)} ids equal")


@pytest.mark.real
@pytest.mark.parametrize("config", [
    {}, {"add_prefix_space": True}, {"add_bos_token": True, "bos_token": "<|endoftext|>"}])
def test_gpt2(nybble, wiki, edges, tmp_path, config):
    folder = folder_of(tmp_path, "gpt2", config={"model_type": "gpt2"},
                       tokenizer_config={"tokenizer_class": "GPT2Tokenizer", **config})
    print(f"{compare_auto(nybble, tmp_path, folder, [wiki[:300000], *edges])} ids equal")


@pytest.mark.real
def test_gpt2_as_first_published(nybble, edges, tmp_path):
    """The same two files under their first names, and no other file to name a class."""
    first = folder_of(tmp_path, "gpt2")
    (first / "vocab.json").rename(first / "encoder.json")
    (first / "merges.txt").rename(first / "vocab.bpe")
    want = transformers.GPT2Tokenizer.from_pretrained(real("gpt2"))
    assert Ours(nybble, first, tmp_path).encode(edges) == [
        want.encode(t, add_special_tokens=False) for t in edges]


@pytest.mark.real
@pytest.mark.parametrize("kind", ["qwen2", "roberta"])
def test_other_classes_of_merges(nybble, wiki, edges, tmp_path, kind):
    """GPT-2's lists read as another class's: words, normalizer and ends are that one's."""
    name = {"qwen2": "Qwen2Tokenizer", "roberta": "RobertaTokenizer"}[kind]
    end = "<|endoftext|>"
    named = {} if kind == "qwen2" else dict(
        bos_token=end, eos_token=end, sep_token=end, cls_token=end, unk_token=end, pad_token=end,
        mask_token=end)
    folder = folder_of(tmp_path, "gpt2", config={"model_type": kind},
                       tokenizer_config={"tokenizer_class": name, **named})
    print(f"{compare_auto(nybble, tmp_path, folder, [wiki[:300000], *edges])} ids equal")


@pytest.mark.real
@pytest.mark.parametrize("config", [
    {}, {"do_lower_case": False}, {"strip_accents": False},
    {"tokenize_chinese_chars": False, "strip_accents": True, "do_lower_case": False}])
def test_bert(nybble, wiki, edges, tmp_path, config):
    folder = folder_of(tmp_path, "bert", config={"model_type": "bert"},
                       tokenizer_config={"tokenizer_class": "BertTokenizer", **config})
    print(f"{compare_auto(nybble, tmp_path, folder, [wiki[:300000], *edges])} ids equal")


@pytest.mark.real
def test_mistral(nybble, wiki, edges, tmp_path):
    compare_sentencepiece(nybble, tmp_path, real("mistral"), [wiki[-300000:], *edges])
    folder = folder_of(tmp_path, "mistral", config={"model_type": "llama"}, tokenizer_config={
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "add_bos_token": True})
    print(f"{compare_auto(nybble, tmp_path, folder, [wiki[:300000], *edges])} ids equal")


def test_class_without_support_is_named(nybble, tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CTRLTokenizer"}')
    done = nybble("tokenize", tmp_path, "--text", "a", ok=False)
    assert done.returncode == 1 and "'CTRLTokenizer'" in done.stderr


UNIGRAM = {
    "plain": dict(normalization_rule_name="nmt_nfkc"),
    "bytes": dict(byte_fallback=True, normalization_rule_name="identity",
                  remove_extra_whitespaces=False),
    "folded": dict(normalization_rule_name="nmt_nfkc_cf", add_dummy_prefix=False),
    "symbols": dict(byte_fallback=True, normalization_rule_name="identity", user_defined_symbols=[
        "<sep>", "the", "é"], control_symbols=["<ctl>"], remove_extra_whitespaces=False),
}


@pytest.mark.parametrize("kind", list(UNIGRAM))
def test_sentencepiece_unigram(nybble, wiki, edges, tmp_path, kind):
    (tmp_path / "text").write_text(wiki[:200000])
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=1000,
        model_type="unigram", character_coverage=0.999, minloglevel=2, **UNIGRAM[kind])
    # Sentence by sentence: over thousands of characters the library's sums, which are in single
    # precision, lose the digits that tell nearly equal ways to cut a word apart.
    sentences = wiki[-400000:].replace("\n", " . ").split(" . ")
    assert len(sentences) > 2000
    compare_sentencepiece(nybble, tmp_path, tmp_path, [*sentences, *edges])
