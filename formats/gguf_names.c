#include "formats/gguf_names.h"

#include <stdlib.h>
#include <string.h>

static const nyb_gguf_pair whole[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {0},
};

static const nyb_gguf_pair common[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},       {0},
};

static const nyb_gguf_pair gemma_own[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {0},
};

static const nyb_gguf_pair phi3_own[] = {
    {"attn_qkv", "self_attn.qkv_proj"},
    {"ffn_up", "mlp.gate_up_proj"},
    {0},
};

static const nyb_gguf_pair none[] = {{0}};

// Mistral is "llama" in GGUF: its window is not kept there.
static const nyb_gguf_arch archs[] = {
    {"llama", "llama", true, false, none},
    {"llama", "mistral", true, false, none},
    {"qwen2", "qwen2", false, false, none},
    {"qwen3", "qwen3", false, false, none},
    {"gemma", "gemma", false, true, none},
    {"gemma2", "gemma2", false, true, gemma_own},
    {"gemma3", "gemma3_text", false, true, gemma_own},
    {"phi3", "phi3", false, false, phi3_own},
};

enum { ARCHS = sizeof(archs) / sizeof(archs[0]) };

const nyb_gguf_arch *nyb_gguf_arch_named(const char *name, size_t length)
{
    for (size_t i = 0; i < ARCHS; i++) {
        if (strlen(archs[i].name) == length && memcmp(archs[i].name, name, length) == 0)
            return &archs[i];
    }
    return NULL;
}

const nyb_gguf_arch *nyb_gguf_arch_of_model(const char *model_type)
{
    for (size_t i = 0; i < ARCHS; i++) {
        if (strcmp(archs[i].model_type, model_type) == 0)
            return &archs[i];
    }
    return NULL;
}

const nyb_gguf_arch *nyb_gguf_arch_at(size_t index)
{
    return index < ARCHS ? &archs[index] : NULL;
}

// ---- Names ----------------------------------------------------------------------------------

// One side of a pair.
static const char *side(const nyb_gguf_pair *pair, bool folder)
{
    return folder ? pair->folder : pair->gguf;
}

// The other side of the pair that has these characters on the one side.
static const char *look_up(const nyb_gguf_pair *pairs, bool from_folder, const char *at,
                           size_t length)
{
    for (; pairs->gguf; pairs++) {
        const char *const from = side(pairs, from_folder);
        if (strlen(from) == length && memcmp(from, at, length) == 0)
            return side(pairs, !from_folder);
    }
    return NULL;
}

// The digits of a block's number and the dot behind them; 0 when there are none.
static size_t index_length(const char *at)
{
    const size_t digits = strspn(at, "0123456789");
    return digits > 0 && digits < 6 && at[digits] == '.' ? digits + 1 : 0;
}

static const char *translate(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name,
                             bool from_folder)
{
    static const nyb_gguf_pair blocks = {"blk.", "model.layers."};
    const char *const same = nyb_arena_text(arena, name, strlen(name));
    const char *const block = side(&blocks, from_folder);
    const char *const ending = strrchr(name, '.');
    if (!ending)
        return same;
    const char *inside = name, *to = NULL;
    size_t index = 0;
    if (strncmp(name, block, strlen(block)) == 0) {
        index = index_length(name + strlen(block));
        inside = name + strlen(block) + index;
        const size_t length = ending > inside ? (size_t) (ending - inside) : 0;
        to = index ? look_up(arch->own, from_folder, inside, length) : NULL;
        if (!to && index)
            to = look_up(common, from_folder, inside, length);
    } else {
        to = look_up(whole, from_folder, name, (size_t) (ending - name));
    }
    if (!to)
        return same;
    return nyb_arena_format(arena, "%s%.*s%s%s", index ? side(&blocks, !from_folder) : "",
                            (int) index, inside - index, to, ending);
}

const char *nyb_gguf_folder_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name)
{
    return translate(arena, arch, name, false);
}

const char *nyb_gguf_file_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name)
{
    return translate(arena, arch, name, true);
}

// ---- Tensors --------------------------------------------------------------------------------

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static nyb_status mark_paired(const nyb_gguf *file, const nyb_gguf_arch *arch, nyb_tensor *tensor,
                              nyb_err *err)
{
    const bool key = ends_with(tensor->name, "self_attn.k_proj.weight");
    nyb_arena arena = {0};
    size_t heads = 0;
    if (!key && !ends_with(tensor->name, "self_attn.q_proj.weight"))
        return NYB_OK;
    const char *const all = nyb_arena_format(&arena, "%s.attention.head_count", arch->name);
    const char *const kv = nyb_arena_format(&arena, "%s.attention.head_count_kv", arch->name);
    nyb_status status = all && kv ? nyb_gguf_size(file, all, &heads, err)
                                  : nyb_no_memory(err, "a key", strlen(arch->name), 1);
    if (status == NYB_OK && key)
        status = nyb_gguf_size(file, kv, &heads, err);
    nyb_arena_clear(&arena);
    if (status != NYB_OK)
        return status;
    const size_t rows = tensor->rank == 2 ? tensor->shape[0] : 0;
    if (heads == 0 || rows % heads != 0 || rows / heads % 2 != 0)
        return nyb_fail(err, NYB_E_FORMAT, "%s: tensor '%s' has %zu rows for %zu heads", file->path,
                        tensor->name, rows, heads);
    tensor->paired_rows = rows / heads;
    return NYB_OK;
}

// Gains without the 1 that was added to them.
static nyb_status take_one(nyb_gguf *file, nyb_tensor *tensor, nyb_err *err)
{
    if (tensor->rank != 1 || tensor->dtype != NYB_F32 || !ends_with(tensor->name, "norm.weight"))
        return NYB_OK;
    float *const gains = nyb_arena_alloc(&file->arena, tensor->shape[0], sizeof(*gains));
    if (!gains)
        return nyb_no_memory(err, tensor->name, tensor->shape[0], sizeof(*gains));
    memcpy(gains, tensor->at, tensor->bytes);
    for (size_t i = 0; i < tensor->shape[0]; i++)
        gains[i] -= 1.0f;
    tensor->at = gains;
    return NYB_OK;
}

nyb_status nyb_gguf_as_folder(nyb_gguf *file, nyb_tensor **out, size_t *count, nyb_err *err)
{
    nyb_gguf_text name = {"", 0};
    nyb_status status = nyb_gguf_string(file, "general.architecture", &name, err);
    const nyb_gguf_arch *const arch = nyb_gguf_arch_named(name.at, name.length);
    nyb_tensor *const tensors = nyb_arena_alloc(&file->arena, file->count, sizeof(*tensors));
    *count = 0;
    if (!tensors)
        return nyb_no_memory(err, "tensors", file->count, sizeof(*tensors));
    for (size_t i = 0; i < file->count && status == NYB_OK; i++) {
        // Factors of the rotary positions: a part of the configuration in a folder.
        if (arch && strcmp(file->tensors[i].name, "rope_freqs.weight") == 0)
            continue;
        nyb_tensor *const tensor = &tensors[(*count)++];
        *tensor = file->tensors[i];
        if (!arch)
            continue;
        tensor->name = nyb_gguf_folder_name(&file->arena, arch, tensor->name);
        if (!tensor->name)
            return nyb_no_memory(err, "tensor names", file->count, 1);
        if (arch->paired)
            status = mark_paired(file, arch, tensor, err);
        if (status == NYB_OK && arch->norm_plus_one)
            status = take_one(file, tensor, err);
    }
    *out = tensors;
    return status;
}
