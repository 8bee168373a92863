#include "formats/gguf_names.h"

#include <stdio.h>
#include <string.h>

static const nyb_gguf_pair llama_whole[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {0},
};

static const nyb_gguf_pair llama_parts[] = {
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

static const nyb_gguf_pair mixtral_own[] = {
    {"ffn_gate_inp", "block_sparse_moe.gate"},
    {"ffn_gate_exps", "block_sparse_moe.experts.*.w1"},
    {"ffn_up_exps", "block_sparse_moe.experts.*.w3"},
    {"ffn_down_exps", "block_sparse_moe.experts.*.w2"},
    {0},
};

static const nyb_gguf_pair qwen_moe_own[] = {
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.*.gate_proj"},
    {"ffn_up_exps", "mlp.experts.*.up_proj"},
    {"ffn_down_exps", "mlp.experts.*.down_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
    {0},
};

static const nyb_gguf_pair gpt2_whole[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {0},
};

static const nyb_gguf_pair gpt2_parts[] = {
    {"attn_norm", "ln_1"},
    {"attn_qkv", "attn.c_attn"},
    {"attn_output", "attn.c_proj"},
    {"ffn_norm", "ln_2"},
    {"ffn_up", "mlp.c_fc"},
    {"ffn_down", "mlp.c_proj"},
    {0},
};

static const nyb_gguf_pair falcon_whole[] = {
    {"token_embd", "transformer.word_embeddings"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {0},
};

static const nyb_gguf_pair falcon_parts[] = {
    {"attn_norm", "input_layernorm"},        {"attn_qkv", "self_attention.query_key_value"},
    {"attn_output", "self_attention.dense"}, {"ffn_up", "mlp.dense_h_to_4h"},
    {"ffn_down", "mlp.dense_4h_to_h"},       {0},
};

// With two norms it is the MLP's that has the usual name.
static const nyb_gguf_pair falcon_two_norms[] = {
    {"attn_norm_2", "ln_attn"}, {"attn_norm", "ln_mlp"}, {0}};

static const nyb_gguf_pair none[] = {{0}};

#define LLAMA .blocks = "model.layers.", .whole = llama_whole, .parts = llama_parts
#define GPT2  .blocks = "transformer.h."

// Mistral is "llama" in GGUF, which has no windows.
static const nyb_gguf_arch archs[] = {
    {"llama", "mixtral", "MixtralForCausalLM", &mixtral_own[0], LLAMA, .own = mixtral_own,
     .paired = true, .windowless = true},
    {"llama", "llama", "LlamaForCausalLM", NULL, LLAMA, .own = none, .paired = true,
     .windowless = true},
    {"llama", "mistral", "MistralForCausalLM", NULL, LLAMA, .own = none, .paired = true,
     .windowless = true},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", NULL, LLAMA, .own = none},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", NULL, LLAMA, .own = none},
    {"qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM", NULL, LLAMA, .own = qwen_moe_own},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", NULL, LLAMA, .own = qwen_moe_own},
    {"gemma", "gemma", "GemmaForCausalLM", NULL, LLAMA, .own = none, .norm_plus_one = true},
    {"gemma2", "gemma2", "Gemma2ForCausalLM", NULL, LLAMA, .own = gemma_own, .norm_plus_one = true},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", NULL, LLAMA, .own = gemma_own,
     .norm_plus_one = true},
    {"phi3", "phi3", "Phi3ForCausalLM", NULL, LLAMA, .own = phi3_own},
    {"gpt2", "gpt2", "GPT2LMHeadModel", NULL, GPT2, .whole = gpt2_whole, .parts = gpt2_parts,
     .own = none},
    {"falcon", "falcon", "FalconForCausalLM", &falcon_two_norms[0], GPT2, .whole = falcon_whole,
     .parts = falcon_parts, .own = falcon_two_norms, .flat = true},
    {"falcon", "falcon", "FalconForCausalLM", NULL, GPT2, .whole = falcon_whole,
     .parts = falcon_parts, .own = none, .flat = true},
};

enum { ARCHS = sizeof(archs) / sizeof(archs[0]), NAME_ROOM = 128, EXPERTS_MOST = 4096 };

const nyb_gguf_arch *nyb_gguf_arch_at(size_t index)
{
    return index < ARCHS ? &archs[index] : NULL;
}

static const nyb_tensor *find(const nyb_gguf *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

const nyb_gguf_arch *nyb_gguf_arch_of_file(const nyb_gguf *file, nyb_gguf_text name)
{
    char tensor[NAME_ROOM];
    for (size_t i = 0; i < ARCHS; i++) {
        if (strlen(archs[i].name) != name.length ||
            memcmp(archs[i].name, name.at, name.length) != 0)
            continue;
        if (!archs[i].marker)
            return &archs[i];
        (void) snprintf(tensor, sizeof(tensor), "blk.0.%s.weight", archs[i].marker->gguf);
        if (find(file, tensor))
            return &archs[i];
    }
    return NULL;
}

const nyb_gguf_arch *nyb_gguf_arch_of_model(const char *model_type,
                                            bool (*has)(const void *folder, const char *name),
                                            const void *folder)
{
    char tensor[NAME_ROOM];
    for (size_t i = 0; i < ARCHS; i++) {
        if (strcmp(archs[i].model_type, model_type) != 0)
            continue;
        if (!archs[i].marker || !has)
            return &archs[i];
        (void) snprintf(tensor, sizeof(tensor), "%s0.%s.weight", archs[i].blocks,
                        archs[i].marker->folder);
        if (has(folder, tensor))
            return &archs[i];
    }
    return NULL;
}

// ---- Names ----------------------------------------------------------------------------------

// Whether `at` [length] is the pattern, whose '*' stands for an expert's number.
static bool matches(const char *pattern, const char *at, size_t length, int *expert)
{
    const char *const star = strchr(pattern, '*');
    const size_t before = star ? (size_t) (star - pattern) : strlen(pattern);
    *expert = NYB_GGUF_NO_EXPERT;
    if (length < before || memcmp(pattern, at, before) != 0)
        return false;
    if (!star)
        return length == before;
    size_t reached = before;
    int number = 0;
    for (; reached < length && at[reached] >= '0' && at[reached] <= '9' && number < EXPERTS_MOST;
         reached++)
        number = 10 * number + (at[reached] - '0');
    *expert = number;
    return reached > before && strlen(star + 1) == length - reached &&
           memcmp(star + 1, at + reached, length - reached) == 0;
}

static const nyb_gguf_pair *look_up(const nyb_gguf_pair *pairs, bool from_folder, const char *at,
                                    size_t length, int *expert)
{
    for (; pairs->gguf; pairs++) {
        if (matches(from_folder ? pairs->folder : pairs->gguf, at, length, expert))
            return pairs;
    }
    return NULL;
}

// The digits of a block's number and the dot behind them; 0 when there are none.
static size_t index_length(const char *at)
{
    const size_t digits = strspn(at, "0123456789");
    return digits > 0 && digits < 6 && at[digits] == '.' ? digits + 1 : 0;
}

// A name cut into "<start><index>.<module><ending>".
typedef struct cut_name {
    const char *index, *module, *ending;
    size_t index_length, module_length; // index_length 0: not in a block
    const nyb_gguf_pair *pair;          // NULL: the module has no counterpart
    int expert;                         // that the module names
} cut_name;

static bool cut(cut_name *out, const nyb_gguf_arch *arch, const char *name, bool from_folder)
{
    const char *const block = from_folder ? arch->blocks : "blk.";
    *out = (cut_name){.module = name, .ending = strrchr(name, '.')};
    if (!out->ending)
        return false;
    if (strncmp(name, block, strlen(block)) == 0) {
        out->index = name + strlen(block);
        out->index_length = index_length(out->index);
        out->module = out->index + out->index_length;
    }
    if (out->ending < out->module || (out->index && out->index_length == 0))
        return false;
    out->module_length = (size_t) (out->ending - out->module);
    const nyb_gguf_pair *const tables[] = {out->index ? arch->own : arch->whole,
                                           out->index ? arch->parts : none};
    for (size_t i = 0; i < 2 && !out->pair; i++)
        out->pair = look_up(tables[i], from_folder, out->module, out->module_length, &out->expert);
    return out->pair != NULL;
}

const char *nyb_gguf_folder_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name,
                                 int expert)
{
    cut_name c;
    if (!cut(&c, arch, name, false))
        return nyb_arena_text(arena, name, strlen(name));
    const char *const star = strchr(c.pair->folder, '*');
    const char *const start = c.index ? arch->blocks : "";
    if (!star)
        return nyb_arena_format(arena, "%s%.*s%s%s", start, (int) c.index_length,
                                c.index ? c.index : "", c.pair->folder, c.ending);
    return nyb_arena_format(arena, "%s%.*s%.*s%d%s%s", start, (int) c.index_length,
                            c.index ? c.index : "", (int) (star - c.pair->folder), c.pair->folder,
                            expert, star + 1, c.ending);
}

const char *nyb_gguf_file_name(nyb_arena *arena, const nyb_gguf_arch *arch, const char *name,
                               int *expert)
{
    cut_name c;
    *expert = NYB_GGUF_NO_EXPERT;
    if (!cut(&c, arch, name, true))
        return nyb_arena_text(arena, name, strlen(name));
    *expert = c.expert;
    return nyb_arena_format(arena, "%s%.*s%s%s", c.index ? "blk." : "", (int) c.index_length,
                            c.index ? c.index : "", c.pair->gguf, c.ending);
}

// ---- Tensors --------------------------------------------------------------------------------

bool nyb_gguf_is_divisors(const char *name)
{
    return strcmp(name, "rope_freqs.weight") == 0 ||
           strcmp(name, "rope_factors_long.weight") == 0 ||
           strcmp(name, "rope_factors_short.weight") == 0;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// Heads of q and of k.
static nyb_status read_heads(const nyb_gguf *file, const nyb_gguf_arch *arch, size_t heads[2],
                             nyb_err *err)
{
    char key[NAME_ROOM];
    (void) snprintf(key, sizeof(key), "%s.attention.head_count", arch->name);
    nyb_status status = nyb_gguf_size(file, key, &heads[0], err);
    heads[1] = heads[0];
    (void) snprintf(key, sizeof(key), "%s.attention.head_count_kv", arch->name);
    return status == NYB_OK ? nyb_gguf_size(file, key, &heads[1], err) : status;
}

static nyb_status mark_order(const nyb_gguf *file, const nyb_gguf_arch *arch, nyb_tensor *tensor,
                             nyb_err *err)
{
    const bool q = ends_with(tensor->name, "self_attn.q_proj.weight");
    const bool k = ends_with(tensor->name, "self_attn.k_proj.weight");
    const bool qkv = ends_with(tensor->name, "self_attention.query_key_value.weight");
    size_t heads[2] = {0};
    if (!(arch->paired && (q || k)) && !(arch->flat && qkv))
        return NYB_OK;
    const nyb_status status = read_heads(file, arch, heads, err);
    if (status != NYB_OK)
        return status;
    const size_t rows = tensor->rank == 2 ? tensor->shape[0] : 0;
    const size_t all = qkv ? heads[0] + 2 * heads[1] : heads[k];
    const bool whole = heads[1] > 0 && heads[0] % heads[1] == 0;
    if (heads[0] > rows || heads[1] > rows || all == 0 || rows % all != 0 ||
        (qkv ? !whole : rows / all % 2 != 0))
        return nyb_fail(err, NYB_E_FORMAT, "%s: tensor '%s' has %zu rows for %zu heads", file->path,
                        tensor->name, rows, all);
    tensor->order.head = rows / all;
    if (qkv) {
        tensor->order.groups = heads[1];
        tensor->order.queries = heads[0] / heads[1];
    }
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

// Of how many experts a tensor of the file holds the matrices; 0: it is no such tensor.
static size_t experts_of(const nyb_gguf_arch *arch, const nyb_tensor *t)
{
    cut_name c;
    if (!arch || t->rank != 3 || !cut(&c, arch, t->name, false))
        return 0;
    return strchr(c.pair->folder, '*') ? t->shape[0] : 0;
}

static nyb_status place(nyb_gguf *file, const nyb_gguf_arch *arch, nyb_tensor *out,
                        const nyb_tensor *from, int expert, nyb_err *err)
{
    *out = *from;
    out->name = nyb_gguf_folder_name(&file->arena, arch, from->name, expert);
    if (!out->name)
        return nyb_no_memory(err, "tensor names", file->count, 1);
    if (expert != NYB_GGUF_NO_EXPERT) {
        out->rank = 2;
        out->shape[0] = from->shape[1];
        out->shape[1] = from->shape[2];
        out->bytes = from->bytes / from->shape[0];
        out->at = (const unsigned char *) from->at + (size_t) expert * out->bytes;
    }
    if (out->rank == 1 && ends_with(out->name, "shared_expert_gate.weight")) {
        out->rank = 2; // a row, of which the file drops the length
        out->shape[1] = out->shape[0];
        out->shape[0] = 1;
    }
    const nyb_status status = mark_order(file, arch, out, err);
    return status == NYB_OK && arch->norm_plus_one ? take_one(file, out, err) : status;
}

// How many tensors there are once experts are told apart.
static nyb_status count_all(const nyb_gguf *file, const nyb_gguf_arch *arch, size_t *out,
                            nyb_err *err)
{
    *out = 0;
    for (size_t i = 0; i < file->count; i++) {
        const size_t experts = experts_of(arch, &file->tensors[i]);
        if (experts > EXPERTS_MOST)
            return nyb_fail(err, NYB_E_FORMAT, "%s: tensor '%s' holds %zu experts, at most %d are",
                            file->path, file->tensors[i].name, experts, EXPERTS_MOST);
        *out += experts ? experts : 1;
    }
    return NYB_OK;
}

nyb_status nyb_gguf_as_folder(nyb_gguf *file, nyb_tensor **out, size_t *count, nyb_err *err)
{
    nyb_gguf_text name = {"", 0};
    size_t room = 0;
    *count = 0;
    nyb_status status = nyb_gguf_string(file, "general.architecture", &name, err);
    const nyb_gguf_arch *const arch = nyb_gguf_arch_of_file(file, name);
    if (status == NYB_OK)
        status = count_all(file, arch, &room, err);
    if (status != NYB_OK)
        return status;
    nyb_tensor *const tensors = nyb_arena_alloc(&file->arena, room + 1, sizeof(*tensors));
    if (!tensors)
        return nyb_no_memory(err, "tensors", room, sizeof(*tensors));
    for (size_t i = 0; i < file->count && status == NYB_OK; i++) {
        const nyb_tensor *const t = &file->tensors[i];
        const size_t experts = experts_of(arch, t);
        if (arch && nyb_gguf_is_divisors(t->name))
            continue;
        if (!arch)
            tensors[(*count)++] = *t;
        else if (experts == 0)
            status = place(file, arch, &tensors[(*count)++], t, NYB_GGUF_NO_EXPERT, err);
        for (size_t e = 0; e < experts && status == NYB_OK; e++)
            status = place(file, arch, &tensors[(*count)++], t, (int) e, err);
    }
    *out = tensors;
    return status;
}
