"""`nybble inspect`: what it tells about good files, and the one line it has for bad ones."""
import json
import re
import shutil
import struct

import pytest

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 96, "vocab_size": 32, "rms_norm_eps": 1e-5}


def write(path, tensors):
    """A safetensors file of name: (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def inspect(nybble, *args, **more):
    return json.loads(nybble("inspect", "--json", *args, **more).stdout)


def loads(found):
    return {r["name"]: r["loads"] for r in found["readers"]}


def refused(done):
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(r"nybble: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def test_plain_model(nybble, stories):
    found = inspect(nybble, stories, "--tensors", "--check")
    assert found["schema"] == "nybble.inspect/1"
    assert (found["model_type"], found["method"], found["faults"]) == ("llama", "none", 0)
    assert found["tensor_count"] == len(found["tensors"]) == 47
    assert found["bytes"] == sum(t["bytes"] for t in found["tensors"]) == 4 * found["parameters"]
    assert found["bits_per_parameter"] == 32 and found["bits_per_quantized_weight"] == 0
    assert found["dtypes"] == {"F32": {"tensors": 47, "bytes": found["bytes"]}}
    assert [t["name"] for t in found["tensors"]] == sorted(t["name"] for t in found["tensors"])
    assert loads(found) == {"nybble": "yes", "vLLM": "yes", "transformers": "yes",
                            "GPTQModel": "if", "llama.cpp converter": "yes"}
    text = nybble("inspect", stories, "--layers", "--tensors").stdout
    for t in found["tensors"]:
        assert t["name"] in text


def test_one_file_is_taken_with_the_config_beside_it(nybble, stories):
    found = inspect(nybble, stories / "model.safetensors")
    assert found["model_type"] == "llama" and found["tensor_count"] == 47


def test_nothing_there(nybble, tmp_path):
    assert "No such file" in refused(nybble("inspect", tmp_path / "none", ok=False))
    assert "safetensors" in refused(nybble("inspect", tmp_path, ok=False))


@pytest.mark.parametrize("name, says", [("pytorch_model.bin", "save_pretrained"),
                                        ("model.pth", "save_pretrained"), ("model.gguf", "GGUF")])
def test_other_files_are_named(nybble, tmp_path, name, says):
    (tmp_path / name).write_bytes(b"PK\3\4")
    assert says in refused(nybble("inspect", tmp_path, ok=False))
    assert says in refused(nybble("inspect", tmp_path / name, ok=False))


def test_truncated_file(nybble, tmp_path, stories):
    whole = (stories / "model.safetensors").read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        assert "model.safetensors" in refused(nybble("inspect", tmp_path, ok=False))


def test_check_finds_what_is_not_a_number(nybble, tmp_path):
    values = struct.pack("<4f", 1, 2, float("nan"), 4)
    write(tmp_path / "model.safetensors", {"a.weight": ("F32", [2, 2], values)})
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert inspect(nybble, tmp_path)["faults"] == 0
    found = inspect(nybble, tmp_path, "--check", ok=False)
    assert found["faults"] == 1 and "'a.weight'" in found["first_fault"]
    assert "element 2" in found["first_fault"] and loads(found)["nybble"] == "no"
    assert nybble("inspect", tmp_path, "--check", ok=False).returncode == 1


@pytest.mark.parametrize("quantization, fault", [
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv_fast"}, "gemv_fast"),
    ({"quant_method": "awq", "bits": 3, "group_size": 128, "version": "gemm"}, "3-bit"),
    ({"quant_method": "hqq", "bits": 4, "group_size": 128}, "hqq"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "gptq_p"}, "gptq_p"),
    ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "nvfp4"),
])
def test_an_unknown_quantization_is_reported(nybble, tmp_path, quantization, fault):
    write(tmp_path / "model.safetensors", {"m.qweight": ("I32", [2, 2], bytes(16)),
                                           "m.scales": ("F16", [1, 2], bytes(4))})
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": quantization}))
    found = inspect(nybble, tmp_path)
    assert fault in found["fault"] and found["method"] == "unknown"
    assert loads(found)["nybble"] == "no" and loads(found)["vLLM"] == "if"
    assert found["layers"][0]["layout"] == "unknown"
    assert fault in nybble("inspect", tmp_path).stdout


def test_packed_layers_without_a_configuration(nybble, tmp_path):
    write(tmp_path / "model.safetensors", {"m.qweight": ("I32", [2, 2], bytes(16))})
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = inspect(nybble, tmp_path)
    assert found["faults"] == 1 and set(loads(found).values()) == {"no"}


def test_a_model_that_nybble_does_not_run(nybble, tmp_path, stories):
    shutil.copy(stories / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"model_type": "resnet"}))
    found = inspect(nybble, tmp_path)
    assert "resnet" in found["model_fault"] and loads(found)["nybble"] == "no"


def test_mixed_settings_of_fused_layers(nybble, tmp_path):
    """q and k with different bits: vLLM runs them as one layer, the others do not."""
    tensors = {}
    for name, bits in (("q_proj", 4), ("k_proj", 8), ("v_proj", 8)):
        tensors |= {f"l.{name}.qweight": ("I32", [64 * bits // 32, 64], bytes(64 * bits * 8)),
                    f"l.{name}.qzeros": ("I32", [1, 64 * bits // 32], bytes(8 * bits)),
                    f"l.{name}.scales": ("F16", [1, 64], b"\0\x3c" * 64),
                    f"l.{name}.g_idx": ("I32", [64], bytes(256))}
    write(tmp_path / "model.safetensors", tensors)
    config = {"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True, "desc_act": False,
              "dynamic": {"+:^l\\.q_proj$": {"bits": 4}}}
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": config}))
    found = inspect(nybble, tmp_path)
    assert [(x["bits"], x["shape"]) for x in found["layers"]] == [(8, [64, 64]), (4, [64, 64]),
                                                                  (8, [64, 64])]
    assert loads(found)["vLLM"] == "no" and loads(found)["GPTQModel"] == "yes"
    assert any("one layer" in r for x in found["readers"] for r in x["reasons"])
    # The zero points of these layers are all 1, which symmetric ones cannot be.
    assert inspect(nybble, tmp_path, "--check", ok=False)["faults"] == 3
