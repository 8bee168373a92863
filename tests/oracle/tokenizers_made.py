"""Tokenizers made here with the `tokenizers` library, one for each kind of pipeline that
checkpoints come with: trained on a piece of text, saved as tokenizer.json."""
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre
from tokenizers import processors

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
          r"|\s*[\r\n]|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
BYTES = pre.ByteLevel.alphabet()
BYTE_TOKENS = [f"<0x{i:02X}>" for i in range(256)]


def byte_level(*steps, prefix=False, regex=False):
    last = pre.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    return pre.Sequence([*steps, last]) if steps else last


def split(pattern, behavior="isolated", invert=False, text=False):
    return pre.Split(pattern if text else Regex(pattern), behavior, invert=invert)


def make(text, pre_tokenizer, *, normalizer=None, decoder=None, post=None, added=(), alphabet=BYTES,
         vocabulary=1500, first=(), post_bos=False, **model):
    """A BPE tokenizer trained on the text's lines."""
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    affixes = {k: v for k, v in model.items() if k in ("continuing_subword_prefix",
                                                       "end_of_word_suffix")}
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(first),
                                  initial_alphabet=alphabet, show_progress=False,
                                  limit_alphabet=len(alphabet) + 200, max_token_length=40, **affixes)
    t.train_from_iterator(text.splitlines(keepends=True), trainer)
    t.decoder = decoder or decoders.ByteLevel()
    t.add_tokens(list(added))
    if post_bos:
        bos = t.token_to_id(first[1])
        post = processors.TemplateProcessing(single=f"{first[1]} $A", pair=f"{first[1]} $A $B",
                                             special_tokens=[(first[1], bos)])
    if post:
        t.post_processor = post
    return t


def spaces_as_symbols():
    return [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


FLAGGED = [AddedToken("<left>", lstrip=True, normalized=False),
           AddedToken("<right>", rstrip=True, normalized=False),
           AddedToken("<both>", lstrip=True, rstrip=True, special=True),
           AddedToken("alone", single_word=True, normalized=True),
           AddedToken("   ", normalized=False), AddedToken("Mixed Case", normalized=True),
           AddedToken("<", normalized=False), AddedToken("<<<", normalized=False)]


def make_words(text, *, lower=True, added=(), vocabulary=1500, normalizer=None, cleanup=True, **model):
    """A WordPiece tokenizer, as BERT has them."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", **model))
    t.normalizer = normalizer or normalizers.BertNormalizer(lowercase=lower)
    t.pre_tokenizer = pre.BertPreTokenizer()
    t.train_from_iterator(text.splitlines(), trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=names, show_progress=False, limit_alphabet=200))
    t.decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(n, t.token_to_id(n)) for n in ("[CLS]", "[SEP]")])
    t.add_tokens(list(added))
    return t


def charsmap():
    """SentencePiece's nmt_nfkc map, out of a model trained on next to nothing."""
    import io
    from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2
    out = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(["a b c d e f g"] * 3), model_writer=out,
                               vocab_size=12, minloglevel=2, normalization_rule_name="nmt_nfkc")
    model = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    return model.normalizer_spec.precompiled_charsmap


def make_unigram(text, *, bytes_too=False, normalizer=None, split=True, unk="<unk>"):
    """A Unigram tokenizer, as T5 and XLM-R have them."""
    first = ["<s>", "<pad>", "</s>"] + ([unk] if unk else []) + (BYTE_TOKENS if bytes_too else [])
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre.Metaspace(split=split)
    trained.train_from_iterator(text.splitlines(), trainers.UnigramTrainer(
        vocab_size=1500, special_tokens=first, unk_token=unk, show_progress=False))
    if not bytes_too:
        t = trained
    else:
        import json
        document = json.loads(trained.to_str())
        document["model"]["byte_fallback"] = True
        t = Tokenizer.from_str(json.dumps(document))
    t.decoder = decoders.Sequence(spaces_as_symbols() + [decoders.Strip(" ", 1, 0)]) \
        if bytes_too else decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", t.token_to_id("</s>"))])
    return t


def all_of(text):
    """Name -> a function that makes the tokenizer."""
    bos = ["<unk>", "<s>", "</s>"]
    return {
        "bert": lambda: make_words(text, added=FLAGGED),
        "bert, cased": lambda: make_words(text, lower=False, cleanup=False),
        "word pieces": lambda: make_words(
            text, max_input_chars_per_word=12, normalizer=normalizers.BertNormalizer(
                clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)),
        "t5": lambda: make_unigram(text, normalizer=normalizers.Sequence([
            normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")])),
        "unigram with bytes": lambda: make_unigram(text, bytes_too=True),
        # Every line is a word there, and the time to train grows with the square of their length.
        "unigram of lines": lambda: make_unigram(text[:80000], split=False, normalizer=normalizers.Nmt()),
        "gpt2": lambda: make(text, byte_level(regex=True), first=["<|endoftext|>"]),
        "gpt2 with a space in front": lambda: make(text, byte_level(prefix=True, regex=True)),
        "llama 3": lambda: make(text, byte_level(split(LLAMA3)), first=["<x>", "<|begin_of_text|>"],
                                ignore_merges=True, post_bos=True),
        "qwen 2": lambda: make(text, byte_level(split(QWEN2)), normalizer=normalizers.NFC(),
                               first=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        "cl100k": lambda: make(text, byte_level(split(CL100K, "removed", invert=True))),
        "o200k": lambda: make(text, byte_level(split(O200K))),
        "deepseek": lambda: make(text, byte_level(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
                                                  split(DEEPSEEK))),
        "bloom": lambda: make(text, byte_level(split(BLOOM))),
        "digits": lambda: make(text, byte_level(pre.Digits(individual_digits=True), regex=True)),
        "digit runs": lambda: make(text, byte_level(pre.Digits(individual_digits=False), regex=True)),
        "falcon": lambda: make(text, pre.Sequence([
            pre.Punctuation(behavior="contiguous"), byte_level(regex=True),
            pre.Digits(individual_digits=False), split("[0-9][0-9][0-9]")])),
        "flags": lambda: make(text, byte_level(regex=True), added=FLAGGED,
                              normalizer=normalizers.Lowercase()),
        "llama 2": lambda: make(
            text, None, alphabet=[], first=bos + BYTE_TOKENS, byte_fallback=True, fuse_unk=True,
            unk_token="<unk>", post_bos=True,
            normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            decoder=decoders.Sequence(spaces_as_symbols() + [decoders.Strip(" ", 1, 0)])),
        "metaspace first": lambda: make(
            text, pre.Metaspace(prepend_scheme="first", split=False), alphabet=[],
            first=bos + BYTE_TOKENS, byte_fallback=True, fuse_unk=True, unk_token="<unk>",
            decoder=decoders.Sequence(spaces_as_symbols() + [decoders.Strip(" ", 1, 0)])),
        "metaspace always": lambda: make(
            text, pre.Metaspace(prepend_scheme="always", split=True), alphabet=[], first=bos,
            unk_token="<unk>", decoder=decoders.Metaspace(prepend_scheme="always", split=True)),
        "metaspace never": lambda: make(
            text, pre.Metaspace(replacement="_", prepend_scheme="never"), alphabet=[], first=bos,
            fuse_unk=True, unk_token="<unk>",
            decoder=decoders.Metaspace(replacement="_", prepend_scheme="never")),
        "gemma": lambda: make(
            text, split(" ", "merged_with_previous", text=True), alphabet=[],
            first=["<pad>", "<bos>", "<eos>", "<unk>"] + BYTE_TOKENS, byte_fallback=True,
            fuse_unk=True, unk_token="<unk>", normalizer=normalizers.Replace(" ", "▁"),
            added=["▁▁", "▁▁▁▁", "\n\n", "\t\t"], post_bos=True,
            decoder=decoders.Sequence(spaces_as_symbols())),
        "words": lambda: make(text, pre.Whitespace(), alphabet=[], first=bos, unk_token="<unk>",
                              end_of_word_suffix="</w>", decoder=decoders.BPEDecoder("</w>"),
                              normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
        "subword prefix": lambda: make(
            text, pre.BertPreTokenizer(), alphabet=[], first=bos, unk_token="<unk>", fuse_unk=True,
            continuing_subword_prefix="##", decoder=decoders.Fuse(),
            normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(),
                                             normalizers.Strip(True, True)])),
        "merged with next": lambda: make(text, byte_level(split(r"\w+|\d", "merged_with_next"))),
        "merged with previous": lambda: make(text, byte_level(split(r"\s|\bt|o\b", "merged_with_previous"))),
        "contiguous": lambda: make(text, byte_level(split(r"[[:alpha:]]|\h", "contiguous"))),
        "removed text": lambda: make(text, byte_level(split("the", "removed", text=True))),
        "empty matches": lambda: make(text, byte_level(split(r"x*|(?=[A-Z])", "isolated"))),
        "scripts": lambda: make(text, byte_level(split(r"(?:[\p{L}&&[^\p{Han}]]+|\p{Greek}|\p{^Latin}|^ |$)"))),
        "delimiter": lambda: make(text, pre.Sequence([pre.CharDelimiterSplit("e"), pre.WhitespaceSplit()]),
                                  alphabet=[], normalizer=normalizers.Sequence([
                                      normalizers.Nmt(), normalizers.NFKD(),
                                      normalizers.Replace(Regex(r"\s+"), " ")]),
                                  unk_token="<unk>", first=bos),
        "bytes normalized": lambda: make(text, split(r"Ġ?[a-z]+"), normalizer=normalizers.ByteLevel(),
                                         added=[AddedToken("naïve x", normalized=True)]),
    }
