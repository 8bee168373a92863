"""Real models of other families than Llama's against transformers, in f32."""
import json

import numpy as np
import tokenizers
import torch
import transformers

WINDOW, WINDOWS = 560, 3 # longer than Gemma's sliding windows, which have 512
TOLERANCE = 2e-2


def written_logits(nybble, model, ids, tmp_path):
    np.save(tmp_path / "ids.npy", np.asarray(ids, np.int32))
    nybble("logits", model, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "logits.npy")
    return np.load(tmp_path / "logits.npy", mmap_mode="r")


def tokens_of(nybble, folder, text):
    return json.loads(nybble("tokenize", folder, "--json", input=text, stdin=None).stdout)["ids"]


def test_gemma3_computes_what_transformers_does(nybble, gemma3, data, tmp_path):
    """Token ids, logits beyond the sliding window, and the perplexity of some windows."""
    text = (data / "text" / "wiki.test.raw").read_text(encoding="utf-8")[:8000]
    ids = tokens_of(nybble, gemma3, text)
    assert ids == tokenizers.Tokenizer.from_file(str(gemma3 / "tokenizer.json")).encode(text).ids
    assert len(ids) >= WINDOW * WINDOWS
    model = transformers.AutoModelForCausalLM.from_pretrained(gemma3, dtype=torch.float32).eval()
    windows = torch.tensor(ids[:WINDOW * WINDOWS]).reshape(WINDOWS, WINDOW)
    loss = 0.0
    with torch.no_grad():
        for i, row in enumerate(windows):
            scores = model(row[None]).logits[0]
            want = scores[500:].numpy() if i == 0 else want
            loss += torch.nn.functional.cross_entropy(scores[:-1], row[1:]).item() / WINDOWS
    got = written_logits(nybble, gemma3, windows[:1].numpy(), tmp_path)[0, 500:]
    worst = float(np.abs(got - want).max())
    print(f"logits: largest difference {worst:.2e} of {np.abs(want).max():.1f}, at most {TOLERANCE}")
    assert worst <= TOLERANCE and want.std() > 1

    np.save(tmp_path / "windows.npy", windows.numpy().astype(np.int32))
    said = json.loads(nybble("eval", gemma3, "--text", tmp_path / "windows.npy", "-w", WINDOW, "--json",
                             "--bos", "never").stdout)
    off = said["perplexity"] / float(np.exp(loss)) - 1
    print(f"perplexity {said['perplexity']:.4f}, transformers' {np.exp(loss):.4f}, "
          f"relative difference {off:.1e}, at most 1e-3")
    assert abs(off) <= 1e-3 and said["data"]["scored"] == WINDOWS * (WINDOW - 1)


def test_minilm_gives_the_states_of_transformers(nybble, minilm, tmp_path):
    text = "The quick brown fox jumps over the lazy dog; naïve café, 1234!"
    ids = tokens_of(nybble, minilm, text)
    assert ids == transformers.AutoTokenizer.from_pretrained(minilm)(text)["input_ids"]
    model = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    with torch.no_grad():
        want = model(torch.tensor([ids])).last_hidden_state.numpy()
    got = written_logits(nybble, minilm, [ids], tmp_path)
    worst = float(np.abs(got - want).max())
    print(f"largest difference {worst:.2e} of {np.abs(want).max():.1f}, at most {TOLERANCE}")
    assert got.shape == want.shape and worst <= TOLERANCE and want.std() > 0.1
