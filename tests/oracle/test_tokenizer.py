"""Token ids and decoded text against transformers, the tokenizers library and sentencepiece: all of
them have to be equal, so there is no tolerance."""
import json
import random

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokenizers_made

# No surrogates, which UTF-8 has not, and no unassigned characters: the libraries carry Unicode's
# tables of different years, and what they say of those differs.
SKIPPED = {"Cs", "Cn"}


@pytest.fixture(scope="session")
def wiki(data):
    """All of the evaluation text, its line ends as they are."""
    return (data / "text/wiki.test.raw").read_bytes().decode()


@pytest.fixture(scope="session")
def edges(root):
    """The edge cases as one text and line by line."""
    text = (root / "tests/data/edge_cases.txt").read_bytes().decode()
    lines = text.split("\n")
    assert len(lines) > 150 and "\0" in text and "\r\n" in text
    return [text, *lines, *(line + "\n" for line in lines[:20])]


class Ours:
    """`nybble tokenize` on one folder."""

    def __init__(self, nybble, folder, tmp_path, *options):
        self.nybble, self.folder, self.options = nybble, folder, options
        self.file = tmp_path / "input.json"

    def run(self, values, *options):
        self.file.write_text(json.dumps(values))
        done = self.nybble("tokenize", self.folder, self.file, "--list", "--json", *self.options,
                           *options)
        return json.loads(done.stdout)

    def encode(self, texts, special=False):
        return self.run(texts, "--special" if special else "--no-special")["ids"]

    def decode(self, lists, skip=False):
        return self.run(lists, "--decode", "--no-special" if skip else "--special")["text"]


def assert_equal(what, texts, got, want):
    assert len(got) == len(want) == len(texts)
    wrong = [i for i in range(len(texts)) if got[i] != want[i]]
    if wrong:
        i = wrong[0]
        at = next((k for k, (a, b) in enumerate(zip(got[i], want[i])) if a != b),
                  min(len(got[i]), len(want[i])))
        raise AssertionError(
            f"{what}: {len(wrong)} of {len(texts)} differ; the first, at {at}: got "
            f"{got[i][max(0, at - 3):at + 8]!r}, want {want[i][max(0, at - 3):at + 8]!r} of "
            f"{len(got[i])} and {len(want[i])}, text {texts[i][:200]!r}")


def random_ids(vocabulary, seed=5):
    """Lists of ids that no text gives: characters cut in two, special tokens anywhere."""
    chance = random.Random(seed)
    few = range(min(vocabulary, 300))
    return [[chance.choice(few) if chance.random() < 0.5 else chance.randrange(vocabulary)
             for _ in range(chance.randrange(40))] for _ in range(300)] + [[], [0]]


def compare(ours, encode, decode, texts, vocabulary):
    """Everything equal: ids with and without what is added, text of ids."""
    tokens = 0
    for special in (False, True):
        want = [encode(t, special) for t in texts]
        assert_equal(f"ids, special {special}", texts, ours.encode(texts, special), want)
        tokens += sum(map(len, want))
    assert tokens > 100
    lists = want + random_ids(vocabulary)
    for skip in (False, True):
        assert_equal(f"text, skip {skip}", lists, ours.decode(lists, skip),
                     [decode(ids, skip) for ids in lists])
    return tokens


def compare_auto(nybble, tmp_path, folder, texts):
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    return compare(Ours(nybble, folder, tmp_path),
                   lambda t, special: auto.encode(t, add_special_tokens=special),
                   lambda ids, skip: auto.decode(ids, skip_special_tokens=skip), texts, len(auto))


def test_smollm2_is_transformers(nybble, smollm2, wiki, edges, tmp_path):
    tokens = compare_auto(nybble, tmp_path, smollm2, [wiki, *edges])
    print(f"{tokens} ids equal")
    backend = tokenizers.Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    compare(Ours(nybble, smollm2, tmp_path),
            lambda t, special: backend.encode(t, add_special_tokens=special).ids,
            lambda ids, skip: backend.decode(ids, skip_special_tokens=skip), edges,
            backend.get_vocab_size())


def test_stories_is_transformers(nybble, stories, wiki, edges, tmp_path):
    print(f"{compare_auto(nybble, tmp_path, stories, [wiki, *edges])} ids equal")


def test_stories_as_llama_tokenizer(nybble, stories, wiki, edges, tmp_path):
    for config in ({}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True},
                   {"legacy": True}, {"add_prefix_space": False}):
        folder = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "tokenizer.model").write_bytes((stories / "tokenizer.model").read_bytes())
        (folder / "config.json").write_bytes((stories / "config.json").read_bytes())
        (folder / "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
             "unk_token": "<unk>", "model_max_length": 10 ** 30, **config}))
        compare_auto(nybble, tmp_path, folder, [wiki[:200000], *edges])


def compare_sentencepiece(nybble, tmp_path, folder, texts):
    model = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    ours = Ours(nybble, folder, tmp_path, "--rules", "sentencepiece")
    want = [model.encode(t) for t in texts]
    assert_equal("ids", texts, ours.encode(texts), want)
    assert_equal("ids, special", texts, ours.encode(texts, True),
                 [[model.bos_id()] * (model.bos_id() >= 0) + ids for ids in want])
    lists = want + random_ids(model.vocab_size())
    assert_equal("text", lists, ours.decode(lists), [model.decode(ids) for ids in lists])


def test_stories_is_sentencepiece(nybble, stories, wiki, edges, tmp_path):
    compare_sentencepiece(nybble, tmp_path, stories, [wiki, *edges])


SPM = {
    "llama": dict(byte_fallback=True, normalization_rule_name="identity",
                  remove_extra_whitespaces=False, split_digits=True),
    "nfkc": dict(normalization_rule_name="nmt_nfkc"),
    "nfkc, folded, bytes": dict(byte_fallback=True, normalization_rule_name="nmt_nfkc_cf"),
    "no prefix": dict(byte_fallback=True, normalization_rule_name="nfkc", add_dummy_prefix=False),
    "symbols": dict(byte_fallback=True, normalization_rule_name="identity", user_defined_symbols=[
        "<sep>", "the", "  ", "\n", "é"], control_symbols=["<ctl>"], remove_extra_whitespaces=False),
    "no bos": dict(normalization_rule_name="identity", bos_id=-1, pad_id=1, eos_id=2),
}


@pytest.fixture(scope="session", params=list(SPM))
def spm_folder(request, wiki, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text").write_text(wiki[:300000])
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "tokenizer"), vocab_size=1000,
        model_type="bpe", character_coverage=0.999, minloglevel=2, **SPM[request.param])
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def test_trained_sentencepiece(nybble, spm_folder, wiki, edges, tmp_path):
    compare_sentencepiece(nybble, tmp_path, spm_folder, [wiki[-200000:], *edges])


@pytest.fixture(scope="session", params=list(tokenizers_made.all_of("")))
def made(request, wiki, tmp_path_factory):
    """A tokenizer made here: its library object and its folder."""
    t = tokenizers_made.all_of(wiki[:250000])[request.param]()
    folder = tmp_path_factory.mktemp("made")
    t.save(str(folder / "tokenizer.json"))
    return t, folder


def test_made(nybble, made, wiki, edges, tmp_path):
    t, folder = made
    compare(Ours(nybble, folder, tmp_path),
            lambda x, special: t.encode(x, add_special_tokens=special).ids,
            lambda ids, skip: t.decode(ids, skip_special_tokens=skip), [wiki[-150000:], *edges],
            t.get_vocab_size())


def text_strategy():
    pieces = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "the", "123", "<s>", "▁", "Ġ",
                              "<|im_end|>", "<|endoftext|>", "é", "e\u0301", "\u00a0", "你好", "👨‍👩‍👧", "<both>"])
    return st.lists(st.one_of(st.text(st.characters(exclude_categories=SKIPPED), max_size=12),
                              pieces), max_size=12).map("".join)


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(text_strategy(), min_size=150, max_size=400))
def test_random_text_is_smollm2s(nybble, smollm2, tmp_path, texts):
    compare_auto(nybble, tmp_path, smollm2, [*texts, "the same at least a hundred ids " * 30])


@settings(max_examples=1, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(text_strategy(), min_size=150, max_size=400))
def test_random_text_is_mades(nybble, made, tmp_path, texts):
    t, folder = made
    compare(Ours(nybble, folder, tmp_path),
            lambda x, special: t.encode(x, add_special_tokens=special).ids,
            lambda ids, skip: t.decode(ids, skip_special_tokens=skip),
            [*texts, "the same at least a hundred ids " * 30], t.get_vocab_size())
