"""GGUF files read as models, against the folders that they were made of."""
import json

import gguf
import gguf_made
import numpy as np
import pytest

T = gguf.GGMLQuantizationType


def logits(nybble, model, ids, folder):
    folder.mkdir(exist_ok=True)
    np.save(folder / "ids.npy", np.asarray(ids, np.int32))
    nybble("logits", model, "--tokens", folder / "ids.npy", "-o", folder / "logits.npy")
    return np.load(folder / "logits.npy")


@pytest.mark.parametrize("kind", [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0],
                         ids=lambda k: k.name)
def test_a_file_computes_what_its_weights_compute(nybble, stories, tmp_path, kind):
    kept = gguf_made.make(stories, tmp_path / "m.gguf", kind)
    same = gguf_made.write_folder(tmp_path / "same", stories, kept)
    ids = np.random.default_rng(1).integers(3, 512, (2, 60))
    got = logits(nybble, tmp_path / "m.gguf", ids, tmp_path / "a")
    want = logits(nybble, same, ids, tmp_path / "b")
    assert np.array_equal(got, want), f"logits differ by up to {np.max(np.abs(got - want))}"
    assert np.ptp(want) > 1


TEXTS = ["Once upon a time, there was a little girl named Lily.", " two  spaces", "", "ünïcödé ☃",
         "<s>tag</s>", "1234567 x86\n\n\tend"]


def ids_of(nybble, model, text):
    found = nybble("tokenize", model, "--json", input=text, stdin=None)
    return json.loads(found.stdout)["ids"]


def test_ids_are_those_of_the_folder(nybble, stories, tmp_path):
    gguf_made.make(stories, tmp_path / "m.gguf")
    import sentencepiece
    spm = sentencepiece.SentencePieceProcessor(str(stories / "tokenizer.model"))
    compared = 0
    for text in TEXTS:
        if "<s>" in text or text.startswith(" ") or not text:
            continue  # llama.cpp's rules, and so ours here, differ from the library's there
        assert ids_of(nybble, tmp_path / "m.gguf", text) == [spm.bos_id(), *spm.encode(text)], text
        compared += 1
    assert compared == 3


def test_a_real_file(nybble, smollm2, data, tmp_path):
    gguf_made.make(smollm2, tmp_path / "m.gguf", T.F16)
    for text in TEXTS:
        if text:
            assert ids_of(nybble, tmp_path / "m.gguf", text) == ids_of(nybble, smollm2, text), text
    ids = [[1, 504, 2017, 30, 28, 253, 1743, 284]]
    got = logits(nybble, tmp_path / "m.gguf", ids, tmp_path / "a")
    want = logits(nybble, smollm2, ids, tmp_path / "b")
    worst = float(np.max(np.abs(got - want)))
    print(f"f16 against bf16: largest difference of a logit {worst:.3g}, at most 2e-3")
    assert worst < 2e-3  # tiny weights are subnormal in f16


def test_inspect_shows_a_file(nybble, stories, tmp_path):
    gguf_made.make(stories, tmp_path / "m.gguf", T.Q5_0)
    seen = json.loads(nybble("inspect", tmp_path / "m.gguf", "--json").stdout)
    assert seen["model_type"] == "llama" and seen["model_fault"] is None
    assert seen["dtypes"]["Q5_0"]["tensors"] == 31 and seen["parameters"] == 260032
    assert "Q5_0" in nybble("inspect", tmp_path / "m.gguf").stdout


def test_refusals_name_what_is_missing(nybble, tmp_path):
    def write(name, arch, fill):
        writer = gguf.GGUFWriter(tmp_path / name, arch)
        fill(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        np.save(tmp_path / "ids.npy", np.zeros((1, 4), np.int32))
        done = nybble("logits", tmp_path / name, "--tokens", tmp_path / "ids.npy", "-o",
                      tmp_path / "l.npy", ok=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        return done.stderr

    assert "architecture 'rwkv6' is not supported" in write("a.gguf", "rwkv6", lambda w: None)
    assert "has no 'llama.embedding_length'" in write("b.gguf", "llama", lambda w: None)

    def experts(w):
        for add in (w.add_embedding_length, w.add_block_count, w.add_head_count,
                    w.add_feed_forward_length):
            add(8)
        w.add_expert_count(4)
        w.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))

    assert "num_experts" in write("c.gguf", "llama", experts)
    (tmp_path / "d.gguf").write_bytes(b"GGUF\1\0\0\0")
    done = nybble("inspect", tmp_path / "d.gguf", ok=False)
    assert done.returncode == 1 and "version 1" in done.stderr


@pytest.mark.parametrize("kind", [T.F16, T.Q4_0])
def test_a_file_becomes_a_folder(nybble, stories, data, tmp_path, kind):
    """Dequantised weights are the file's, ids are those of the file and of the sentencepiece library, and the
    folder is quantised as any other."""
    import sentencepiece
    from safetensors.numpy import load_file

    kept = gguf_made.make(stories, tmp_path / "m.gguf", kind)
    nybble("convert", tmp_path / "m.gguf", "-o", tmp_path / "f", "--format", "f32")
    got = load_file(tmp_path / "f" / "model.safetensors")
    assert got.keys() == kept.keys() and all(np.array_equal(got[n], kept[n]) for n in kept)
    ours = sentencepiece.SentencePieceProcessor(str(tmp_path / "f" / "tokenizer.model"))
    theirs = sentencepiece.SentencePieceProcessor(str(stories / "tokenizer.model"))
    text = (data / "text" / "tinystories-sample.txt").read_text()[:20000]
    assert ours.encode(text) == theirs.encode(text)
    for text in TEXTS:
        assert ids_of(nybble, tmp_path / "f", text) == ids_of(nybble, tmp_path / "m.gguf", text)
    calib = ("--calib", data / "text" / "tinystories-sample.txt", "-n", "4", "-l", "64", "-g", "-1")
    done = nybble("quantize", tmp_path / "m.gguf", "-o", tmp_path / "q", *calib, ok=False)
    assert done.returncode == 1 and "nybble convert --format bf16" in done.stderr
    nybble("quantize", tmp_path / "f", "-o", tmp_path / "q", *calib)
    assert json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    done = nybble("convert", tmp_path / "m.gguf", "-o", tmp_path / "g", "--format", "gptq", ok=False)
    assert done.returncode == 1 and "quantise the folder" in done.stderr and not (tmp_path / "g").exists()
