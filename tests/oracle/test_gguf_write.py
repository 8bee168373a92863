"""GGUF files that nybble writes, read by gguf-py and compared with what gguf-py rounds itself."""
import json

import gguf
import gguf_made
import numpy as np
import pytest
from gguf import quants

T = gguf.GGMLQuantizationType
PLAIN = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def write(nybble, folder, out, kind, *more, method="rtn"):
    return nybble("quantize", folder, "-o", out, "-f", f"gguf:{kind}", "-m", method, *more)


def fields_of(reader):
    return {key: field.contents() for key, field in reader.fields.items()}


def expected(folder, kind):
    """Name, type and bytes of every tensor as llama-quantize rounds them."""
    config = json.loads((folder / "config.json").read_text())
    heads = {"self_attn.q_proj.weight": config["num_attention_heads"],
             "self_attn.k_proj.weight": config["num_key_value_heads"]}
    for name, x in gguf_made.tensors_of(folder):
        part = name.split(".", 3)[-1]
        x = gguf_made.paired(x, heads[part]) if part in heads else x
        used = kind if x.ndim > 1 else T.F32
        if x.ndim > 1 and name == "model.embed_tokens.weight" and kind not in (T.F32, T.F16, T.BF16):
            used = T.Q8_0  # the tied head, whose rows are no blocks of Q6_K
        if x.shape[-1] % gguf.GGML_QUANT_SIZES[used][0]:
            used = T.F16
        yield gguf_made.name_in_file(name), used, quants.quantize(x, used)


@pytest.mark.parametrize("kind", PLAIN)
def test_tensors_are_gguf_pys(nybble, stories, tmp_path, kind):
    out = tmp_path / "m.gguf"
    said = write(nybble, stories, out, kind).stderr
    tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
    seen = 0
    for name, used, raw in expected(stories, T[kind]):
        assert tensors[name].tensor_type == used, name
        got = tensors[name].data
        assert got.tobytes() == raw.tobytes(), f"{name} as {used.name}"
        seen += 1
    assert seen == len(tensors) == 47
    report = json.loads((tmp_path / "m.gguf.report.json").read_text())
    assert all(f["tensor"] in said for f in report["fallbacks"])
    assert bool(report["fallbacks"]) == kind.startswith("Q")  # rows of 172


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_rows_too_short_for_k_types_get_another_type(nybble, stories, tmp_path, kind):
    write(nybble, stories, tmp_path / "m.gguf", kind)
    used = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    instead = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
    assert used["blk.0.attn_q.weight"] == instead[kind]
    assert used["blk.0.ffn_down.weight"] == "F16" and used["blk.0.attn_norm.weight"] == "F32"


def test_metadata_and_tokenizer_are_there(nybble, stories, tmp_path):
    import sentencepiece

    write(nybble, stories, tmp_path / "m.gguf", "F16")
    fields = fields_of(gguf.GGUFReader(tmp_path / "m.gguf"))
    want = {"general.architecture": "llama", "general.file_type": 1, "llama.block_count": 5,
            "general.quantization_version": 2, "llama.embedding_length": 64,
            "llama.attention.head_count": 8, "llama.attention.head_count_kv": 4,
            "llama.feed_forward_length": 172, "llama.rope.dimension_count": 8,
            "llama.context_length": 512, "llama.rope.freq_base": 10000.0,
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_bos_token": True}
    for key, value in want.items():
        assert fields[key] == value, key
    spm = sentencepiece.SentencePieceProcessor(str(stories / "tokenizer.model"))
    assert fields["tokenizer.ggml.tokens"] == [spm.id_to_piece(i) for i in range(512)]
    assert fields["tokenizer.ggml.scores"] == [spm.get_score(i) for i in range(512)]
    assert fields["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]


def logits(nybble, model, folder):
    folder.mkdir()
    np.save(folder / "i.npy", np.random.default_rng(5).integers(3, 512, (2, 40)).astype(np.int32))
    nybble("logits", model, "--tokens", folder / "i.npy", "-o", folder / "l.npy")
    return np.load(folder / "l.npy")


def test_what_is_written_is_read(nybble, stories, tmp_path):
    """f32 all the way: the same logits; and a file of a file is that file."""
    write(nybble, stories, tmp_path / "a.gguf", "F32")
    assert np.array_equal(logits(nybble, stories, tmp_path / "1"),
                          logits(nybble, tmp_path / "a.gguf", tmp_path / "2"))
    write(nybble, tmp_path / "a.gguf", tmp_path / "b.gguf", "Q8_0")
    write(nybble, stories, tmp_path / "c.gguf", "Q8_0")
    write(nybble, tmp_path / "b.gguf", tmp_path / "d.gguf", "Q8_0")
    b, c, d = ({t.name: t.data.tobytes() for t in gguf.GGUFReader(tmp_path / n).tensors}
               for n in ("b.gguf", "c.gguf", "d.gguf"))
    assert b == c == d
    one = tmp_path / "one.gguf"
    nybble("quantize", stories, "-o", one, "-f", "gguf:Q8_0", "-m", "rtn", "--threads", "1")
    assert one.read_bytes() == (tmp_path / "c.gguf").read_bytes()


def divisible(folder, source):
    """The small model with a wider MLP, so that every row is whole blocks."""
    config = json.loads((source / "config.json").read_text())
    config["intermediate_size"] = 192
    tensors = {}
    for name, x in gguf_made.tensors_of(source):
        if "mlp" in name:
            x = np.pad(x, ((0, 0), (0, 20)) if "down" in name else ((0, 20), (0, 0)))
        tensors[name] = x
    gguf_made.write_folder(folder, source, tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_gptq_is_solved_on_the_files_grid(nybble, stories, data, tmp_path, kind):
    model = divisible(tmp_path / "m", stories)
    text = data / "text" / "tinystories-sample.txt"
    calib = ("--calib", text, "-n", "4", "-l", "64")
    out = tmp_path / "g.gguf"
    write(nybble, model, out, kind, *calib, method="gptq")
    assert not list(tmp_path.glob("g.gguf.solve*")) and not list(tmp_path.glob("*.partial"))
    nybble("quantize", model, "-o", tmp_path / "f", "-f", "gptq_v2", "-b", kind[1], "-g", "32",
           *calib)
    report = json.loads((tmp_path / "g.gguf.report.json").read_text())
    totals = report["solve"]["totals"]
    print(f"loss {totals['loss']:.4g}, plain rounding {totals['rtn_loss']:.4g}")
    assert report["fallbacks"] == [{"tensor": "token_embd.weight", "asked": "Q6_K", "used": "Q8_0"}
                                   ][:kind == "Q4_0"]
    assert totals["loss"] < totals["rtn_loss"]
    tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
    assert all(t.tensor_type == T[kind] for n, t in tensors.items() if n.startswith("blk.")
               and not n.endswith("norm.weight"))
    # The codes are the solve's own: gguf-py reads the very numbers that the folder holds.
    from safetensors.numpy import load_file

    packed = load_file(tmp_path / "f" / "model.safetensors")
    q = packed["model.layers.1.mlp.down_proj.qweight"].view(np.uint32)
    scales = packed["model.layers.1.mlp.down_proj.scales"].astype(np.float32)
    bits = int(kind[1])
    codes = np.stack([q >> (bits * i) & (2**bits - 1) for i in range(32 // bits)], 1)
    codes = codes.reshape(-1, q.shape[1]).astype(np.float32)
    want = ((codes - 2**(bits - 1)) * np.repeat(scales, 32, 0)).T
    down = tensors["blk.1.ffn_down.weight"]
    assert np.array_equal(quants.dequantize(down.data, T[kind]).reshape(want.shape), want)


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_gptq_is_solved_on_grids_of_blocks(nybble, tmp_path, monkeypatch, kind):
    """The file's numbers are the solve's, and its layers give less error than rounded ones."""
    import families

    monkeypatch.setitem(families.FAMILIES, "llama", ("Llama", "LlamaForCausalLM", [families.sizes(
        hidden_size=256, intermediate_size=512, num_attention_heads=4, num_hidden_layers=2)]))
    families.make("llama", 0, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    rng = np.random.default_rng(3)
    np.save(tmp_path / "c.npy", rng.integers(0, 97, (16, 32)).astype(np.int32))
    np.save(tmp_path / "i.npy", rng.integers(0, 97, (4, 30)).astype(np.int32))
    away = {}
    for method in ("rtn", "gptq"):
        more = ("--calib", tmp_path / "c.npy", "-n", "16", "-l", "32") if method == "gptq" else ()
        write(nybble, tmp_path / "m", tmp_path / f"{method}.gguf", kind, *more, method=method)
        got = []
        for model in (tmp_path / "m", tmp_path / f"{method}.gguf"):
            nybble("logits", model, "--tokens", tmp_path / "i.npy", "-o", tmp_path / "l.npy")
            got.append(np.load(tmp_path / "l.npy"))
        away[method] = float(np.sqrt(np.mean((got[0] - got[1])**2)))
    report = json.loads((tmp_path / "gptq.gguf.report.json").read_text())
    totals = report["solve"]["totals"]
    print(f"{kind}: loss {totals['loss']:.4g}, rounded {totals['rtn_loss']:.4g}; logits off by "
          f"{away['gptq']:.4g}, rounded by {away['rtn']:.4g}")
    assert report["fallbacks"] == [] and totals["loss"] < totals["rtn_loss"]
    assert away["gptq"] < away["rtn"]
    tensors = [t for t in gguf.GGUFReader(tmp_path / "gptq.gguf").tensors
               if t.name.startswith("blk.") and len(t.shape) == 2]
    assert len(tensors) == 14 and {t.tensor_type for t in tensors} == {T[kind]}
    assert all(np.all(np.isfinite(quants.dequantize(t.data, T[kind]))) for t in tensors)


def test_rows_without_blocks_are_left_out_of_the_solve(nybble, stories, data, tmp_path):
    """stories260k has rows of 172, which no type of blocks fits, and of 64, which are no K block."""
    text = data / "text" / "tinystories-sample.txt"
    write(nybble, stories, tmp_path / "g.gguf", "Q4_K", "--calib", text, "-n", "4", "-l", "64",
          method="gptq")
    kinds = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / "g.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == T.Q5_0 and kinds["blk.0.ffn_down.weight"] == T.F16
    report = json.loads((tmp_path / "g.gguf.report.json").read_text())
    totals = report["solve"]["totals"]
    print(f"loss {totals['loss']:.4g}, plain rounding {totals['rtn_loss']:.4g}")
    assert 0 < totals["loss"] < totals["rtn_loss"]
    assert "blk.0.ffn_down.weight" in {f["tensor"] for f in report["fallbacks"]}


def test_contradictions_are_refused(nybble, stories, tmp_path):
    def line(*args):
        done = nybble("quantize", stories, "-o", tmp_path / "x.gguf", *args, ok=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())
        return done.stderr

    assert "no grid to solve on" in line("-f", "gguf:BF16")
    assert "leave out --weight-bits" in line("-f", "gguf:Q4_K", "-b", "4")
    assert "--static-groups" in line("-f", "gguf:Q4_1", "--activation-order", "full")
    assert "leave out --weight-bits" in line("-f", "gguf:Q4_0", "-b", "3")
    assert "leave out --asymmetric" in line("-f", "gguf:Q8_0", "--asymmetric")
    assert "multiple of 32" in line("-f", "gguf:Q4_0", "-g", "16")
    assert "has no settings" in line("-f", "gguf:Q4_0", "-m", "rtn", "-g", "64")
    assert "methods rtn and gptq only" in line("-f", "gguf:Q4_0", "-m", "int4")
    (tmp_path / "x.gguf").write_text("mine")
    done = nybble("quantize", stories, "-o", tmp_path / "x.gguf", "-f", "gguf:F16", "-m", "rtn",
                  "--force", ok=False)
    assert done.returncode == 1 and (tmp_path / "x.gguf").read_text() == "mine"


TOKENIZER = {
    "version": "1.0",
    "model": {"type": "BPE", "vocab": {chr(33 + i): i for i in range(90)}, "merges": []},
    "added_tokens": [], "normalizer": None, "post_processor": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "decoder": {"type": "ByteLevel"},
}
WRITTEN = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt2",
           "falcon", "mixtral", "qwen2_moe", "qwen3_moe"]


@pytest.mark.parametrize("family", WRITTEN)
def test_families_come_back_or_are_refused(nybble, tmp_path, family):
    """Whatever a configuration has, the file computes the same, or there is none."""
    import families

    refused = []
    count = min(3, len(families.FAMILIES[family][2]))
    for i in range(count):
        folder = tmp_path / f"m{i}"
        families.make(family, i, folder)
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        out = tmp_path / f"{i}.gguf"
        done = nybble("quantize", folder, "-o", out, "-f", "gguf:F32", "-m", "rtn", "-q", ok=False)
        if done.returncode:
            assert done.returncode == 1 and done.stderr.count("\n") == 1 and not out.exists()
            refused.append(done.stderr.strip())
            continue
        np.save(tmp_path / "i.npy", np.random.default_rng(i).integers(0, 97, (2, 30)).astype(np.int32))
        got = {}
        for name, model in (("folder", folder), ("file", out)):
            nybble("logits", model, "--tokens", tmp_path / "i.npy", "-o", tmp_path / f"{name}.npy")
            got[name] = np.load(tmp_path / f"{name}.npy")
        worst = float(np.max(np.abs(got["folder"] - got["file"])))
        print(f"{family} {i}: largest difference {worst:.3g}, at most 2e-5")
        assert worst < 2e-5
    print("\n".join(refused))
    # Of Gemma 2 and 3 the file does not say the scale of the scores, and these have odd ones.
    # llama.cpp has experts in every block of Qwen's, and its Qwen 2 never divides their weights.
    assert len(refused) < count or family in ("gemma2", "gemma3_text", "qwen2_moe", "qwen3_moe")
    assert all("cannot say" in line or "not written" in line or "GGUF has" in line or
               "usual 1, 4 and 8192" in line for line in refused)


def test_importance_matrix(nybble, stories, tmp_path):
    """in_sum2 of the first layers is the sum of squares that numpy gets for their inputs."""
    ids = np.random.default_rng(2).integers(3, 512, (6, 50)).astype(np.int32)
    np.save(tmp_path / "ids.npy", ids)
    nybble("quantize", stories, "-o", tmp_path / "q", "-g", "-1", "-n", "6", "-l", "50", "--bos",
           "never", "--calib", tmp_path / "ids.npy", "--imatrix", tmp_path / "i.gguf")
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    fields = fields_of(reader)
    assert fields["general.type"] == "imatrix" and fields["imatrix.chunk_count"] == 6
    assert fields["imatrix.chunk_size"] == 50
    assert fields["imatrix.datasets"] == [str(tmp_path / "ids.npy")]
    tensors = {t.name: t for t in reader.tensors}
    assert len(tensors) == 2 * 35
    for name, t in tensors.items():
        assert list(t.shape) == ([1, 1] if name.endswith("counts") else [t.shape[0], 1])
        assert np.all(np.isfinite(t.data)) and np.all(t.data >= 0)
        assert not name.endswith("counts") or t.data.item() == 300
    weights = dict(gguf_made.tensors_of(stories))
    x = weights["model.embed_tokens.weight"][ids.ravel()].astype(np.float64)
    x = x / np.sqrt(np.mean(x**2, 1, keepdims=True) + 1e-5)
    want = np.sum((x * weights["model.layers.0.input_layernorm.weight"])**2, 0)
    for part in ("attn_q", "attn_k", "attn_v"):
        got = tensors[f"blk.0.{part}.weight.in_sum2"].data.ravel()
        worst = float(np.max(np.abs(got / want - 1)))
        print(f"{part}: relative difference {worst:.3g}, at most 1e-5")
        assert worst < 1e-5
    done = nybble("quantize", stories, "-o", tmp_path / "r", "-m", "rtn", "-g", "-1", "--imatrix",
                  tmp_path / "r.gguf", ok=False)
    assert done.returncode == 1 and "use --method gptq" in done.stderr
    assert not (tmp_path / "r.gguf").exists() and not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q6_K"])
def test_rounding_by_an_importance_matrix(nybble, tmp_path, monkeypatch, kind):
    """The weighted error of every matrix falls, and that of a matrix of ones need not."""
    import families

    monkeypatch.setitem(families.FAMILIES, "llama", ("Llama", "LlamaForCausalLM", [families.sizes(
        hidden_size=256, intermediate_size=256, num_attention_heads=4, num_hidden_layers=1)]))
    families.make("llama", 0, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    rng = np.random.default_rng(5)
    np.save(tmp_path / "c.npy", rng.integers(0, 97, (16, 32)).astype(np.int32))
    nybble("quantize", tmp_path / "m", "-o", tmp_path / "q", "-g", "-1", "-n", "16", "-l", "32",
           "--calib", tmp_path / "c.npy", "--imatrix", tmp_path / "i.gguf")
    write(nybble, tmp_path / "m", tmp_path / "a.gguf", kind)
    write(nybble, tmp_path / "m", tmp_path / "b.gguf", kind, "--imatrix-in", tmp_path / "i.gguf")
    write(nybble, tmp_path / "m", tmp_path / "f.gguf", "F32")
    weights = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "i.gguf").tensors}
    full = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "f.gguf").tensors}
    errors = {}
    for name in ("a", "b"):
        for t in gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors:
            if f"{t.name}.in_sum2" in weights:
                off = quants.dequantize(t.data, T[kind]) - full[t.name]
                errors.setdefault(t.name, []).append(
                    float(np.sum(off.astype(np.float64)**2 * weights[f"{t.name}.in_sum2"].ravel())))
    assert len(errors) == 7
    print({n: round(b / a, 3) for n, (a, b) in errors.items()})
    for plain, weighed in errors.values():
        assert weighed < plain if kind != "Q8_0" else weighed == plain
    report = json.loads((tmp_path / "b.gguf.report.json").read_text())
    assert sum(t["weighed"] for t in report["tensors"]) == 7


def test_importance_matrices_that_do_not_fit_are_refused(nybble, stories, tmp_path):
    def line(path, *more, method="rtn"):
        done = nybble("quantize", stories, "-o", tmp_path / "x.gguf", "-m", method, "--imatrix-in",
                      path, *more, ok=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert not (tmp_path / "x.gguf").exists()
        return done.stderr

    def matrix(name, tensors, kind="imatrix"):
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_type(kind)
        for key, x in tensors.items():
            writer.add_tensor(key, np.asarray(x, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    to = ("-f", "gguf:Q4_0")
    name = "blk.0.attn_q.weight"
    (tmp_path / "old.dat").write_bytes(b"\x02\0\0\0\x05\0\0\0hello")
    assert "llama-imatrix --in-file" in line(tmp_path / "old.dat", *to)
    assert "'general.type' is not" in line(matrix("a", {"x": [1.0]}, "model"), *to)
    assert "knows none of the matrices" in line(matrix("b", {"x.in_sum2": [1], "x.counts": [1]}), *to)
    short = matrix("c", {f"{name}.in_sum2": np.ones((1, 63)), f"{name}.counts": [[1]]})
    assert "of 64 F32 numbers" in line(short, *to)
    bad = matrix("d", {f"{name}.in_sum2": -np.ones((1, 64)), f"{name}.counts": [[1]]})
    assert "a sum of -1" in line(bad, *to)
    assert "use --method rtn" in line(short, *to, method="gptq")
    assert "rounds GGUF files alone" in line(short, "-g", "-1")


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
BYTES = {**TOKENIZER["pre_tokenizer"], "trim_offsets": True}
FALCON = [{"type": "Punctuation", "behavior": "Contiguous"}, BYTES,
          {"type": "Digits", "individual_digits": False}, {**SPLIT, "pattern": {"Regex": "[0-9][0-9][0-9]"}}]
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = [{**SPLIT, "pattern": {"Regex": WORDS}}, {**BYTES, "use_regex": False}]


@pytest.mark.parametrize("name,steps,whole", [("falcon", FALCON, False), ("llama-bpe", LLAMA3, True),
                                              ("dbrx", LLAMA3, False)])
def test_ways_to_cut_text_have_names(nybble, tmp_path, name, steps, whole):
    import families
    import tokenizers

    families.make("llama", 0, tmp_path / "m")
    document = {**TOKENIZER, "model": {**TOKENIZER["model"], "ignore_merges": whole, "merges": ["a b", "1 2"],
                                       "vocab": {**TOKENIZER["model"]["vocab"], "ab": 90, "12": 91}},
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "decoder": BYTES}
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(document))
    write(nybble, tmp_path / "m", tmp_path / "x.gguf", "F16")
    assert fields_of(gguf.GGUFReader(tmp_path / "x.gguf"))["tokenizer.ggml.pre"] == name
    theirs = tokenizers.Tokenizer.from_str(json.dumps(document))
    for text in ("ab12ab1212,12ab", "12121212!!ab", "1!ab--ab'12"):
        got = json.loads(nybble("tokenize", tmp_path / "x.gguf", "--json", "--text", text).stdout)["ids"]
        assert got == theirs.encode(text).ids
