"""GGUF files made of Hugging Face folders with gguf-py, the way llama.cpp's converter makes them."""
import json
import struct

import gguf
import numpy as np
from gguf import quants

T = gguf.GGMLQuantizationType

NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
PARTS = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def tensors_of(folder):
    """Each tensor of model.safetensors as f32."""
    raw = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    for name, entry in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + o for o in entry["data_offsets"])
        data = raw[begin:end]
        if entry["dtype"] == "BF16":
            wide = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            wide = np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[entry["dtype"]])
        yield name, wide.astype(np.float32).reshape(entry["shape"])


def name_in_file(name):
    module, ending = name.rsplit(".", 1)
    if module in NAMES:
        return f"{NAMES[module]}.{ending}"
    _, _, index, part = module.split(".", 3)
    return f"blk.{index}.{PARTS[part]}.{ending}"


def paired(x, heads):
    """Rows of each head's halves put in pairs."""
    return np.ascontiguousarray(
        x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape))


def add_config(writer, config):
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    writer.add_rope_freq_base(theta)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def add_json_tokenizer(writer, folder, config, pre):
    document = json.loads((folder / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    tokens = [""] * config["vocab_size"]
    types = [1] * len(tokens)
    for text, index in vocab.items():
        tokens[index] = text
    for token in document["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = 3 if token["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in document["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def add_spm_tokenizer(writer, folder):
    import sentencepiece

    spm = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    types = []
    for i in range(len(spm)):
        types.append(2 if spm.is_unknown(i) else 3 if spm.is_control(i) else 5 if spm.is_unused(i)
                     else 6 if spm.is_byte(i) else 1)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([spm.id_to_piece(i) for i in range(len(spm))])
    writer.add_token_scores([spm.get_score(i) for i in range(len(spm))])
    writer.add_token_types(types)
    writer.add_bos_token_id(spm.bos_id())
    writer.add_eos_token_id(spm.eos_id())
    writer.add_unk_token_id(spm.unk_id())


def make(folder, out, kind=T.F32, pre="gpt-2", rest=T.Q8_0):
    """Writes `folder` as a GGUF file whose matrices are `kind`, or `rest` where blocks do not
    fit. Returns what a reader should make of each tensor, under its name in the folder."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    add_config(writer, config)
    if (folder / "tokenizer.json").exists():
        add_json_tokenizer(writer, folder, config, pre)
    elif (folder / "tokenizer.model").exists():
        add_spm_tokenizer(writer, folder)
    kept = {}
    for name, x in tensors_of(folder):
        heads = {"self_attn.q_proj.weight": config["num_attention_heads"],
                 "self_attn.k_proj.weight": config["num_key_value_heads"]}
        part = name.split(".", 3)[-1]
        kept[name] = x
        if x.ndim == 1:
            writer.add_tensor(name_in_file(name), x)
            continue
        fits = x.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        used = kind if fits else rest if x.shape[1] % 32 == 0 else T.F32
        stored = quants.quantize(paired(x, heads[part]) if part in heads else x, used)
        writer.add_tensor(name_in_file(name), stored, raw_dtype=used)
        kept[name] = quants.dequantize(quants.quantize(x, used), used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def write_folder(folder, source, tensors):
    """`source` with other weights, in f32."""
    header, blobs, at = {}, [], 0
    for name, x in tensors.items():
        data = np.ascontiguousarray(x, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    for other in source.iterdir():
        if other.suffix != ".safetensors":
            (folder / other.name).write_bytes(other.read_bytes())
    return folder
