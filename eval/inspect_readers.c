// What each program accepts follows its source as of autumn 2026: vLLM 0.33, transformers 5.23,
// GPTQModel 7.7, and llama.cpp's convert_hf_to_gguf.py.
#include "eval/inspect_readers.h"

#include <string.h>

enum { NYBBLE, VLLM, TRANSFORMERS, GPTQMODEL, LLAMA_CPP, READERS };

static const char *const names[READERS] = {"nybble", "vLLM", "transformers", "GPTQModel",
                                           "llama.cpp converter"};

// Whether a quantised layer has a property.
typedef bool predicate(const nyb_inspect_layer *layer);

static bool is_unknown(const nyb_inspect_layer *l)
{
    return strcmp(l->layout, "unknown") == 0;
}

static bool is_gptq(const nyb_inspect_layer *l)
{
    return strcmp(l->layout, "gptq") == 0;
}

static bool is_gptq_v2(const nyb_inspect_layer *l)
{
    return strcmp(l->layout, "gptq_v2") == 0;
}

static bool is_any_gptq(const nyb_inspect_layer *l)
{
    return is_gptq(l) || is_gptq_v2(l);
}

static bool is_compressed(const nyb_inspect_layer *l)
{
    return strcmp(l->layout, "compressed-tensors") == 0;
}

static bool gptq_odd_bits(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && l->bits != 4 && l->bits != 8;
}

static bool gptq_three_bits(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && l->bits == 3;
}

static bool gptq_asymmetric(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && !l->symmetric;
}

static bool gptq_irregular(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && l->irregular;
}

static bool gptq_marlin_group(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && l->group_size != 0 && l->group_size != 32 && l->group_size != 64 &&
           l->group_size != 128;
}

static bool gptq_off_tile(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && (l->cols % 128 != 0 || l->rows % 64 != 0);
}

static bool gptq_partial_group(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && l->group_size != 0 && l->cols % l->group_size != 0;
}

static bool gptq_odd_rows(const nyb_inspect_layer *l)
{
    return is_any_gptq(l) && l->rows % 32 != 0;
}

static bool gptq_odd_group(const nyb_inspect_layer *l)
{
    const size_t g = l->group_size;
    return is_any_gptq(l) && g != 0 && (g < 16 || g > 1024 || (g & (g - 1)) != 0);
}

static bool is_awq(const nyb_inspect_layer *l)
{
    return strcmp(l->layout, "awq") == 0;
}

static bool awq_odd_group(const nyb_inspect_layer *l)
{
    const size_t g = l->group_size;
    return is_awq(l) && g != 0 && g != 32 && g != 64 && g != 128;
}

static bool awq_partial_group(const nyb_inspect_layer *l)
{
    return is_awq(l) && l->group_size != 0 && l->cols % l->group_size != 0;
}

static bool has_format(const nyb_inspect_layer *l, const char *format)
{
    return l->format && strcmp(l->format, format) == 0;
}

static bool is_packed(const nyb_inspect_layer *l)
{
    return has_format(l, "pack-quantized");
}

static bool is_int_quantized(const nyb_inspect_layer *l)
{
    return has_format(l, "int-quantized");
}

static bool is_fp8(const nyb_inspect_layer *l)
{
    return strcmp(l->layout, "fp8") == 0;
}

static bool fp8_partial_block(const nyb_inspect_layer *l)
{
    return is_fp8(l) &&
           ((l->rows > 128 && l->rows % 128 != 0) || (l->cols > 128 && l->cols % 128 != 0));
}

static bool compressed_irregular(const nyb_inspect_layer *l)
{
    return is_compressed(l) && l->irregular;
}

static bool compressed_padded(const nyb_inspect_layer *l)
{
    return is_compressed(l) && l->padded;
}

static bool compressed_dense_three(const nyb_inspect_layer *l)
{
    return is_compressed(l) && l->bits == 3 && !l->padded && is_packed(l);
}

static bool compressed_asymmetric(const nyb_inspect_layer *l)
{
    return is_compressed(l) && !l->symmetric;
}

static bool compressed_channel(const nyb_inspect_layer *l)
{
    return is_compressed(l) && l->group_size == 0 && is_packed(l);
}

static bool compressed_partial_group(const nyb_inspect_layer *l)
{
    return is_compressed(l) && l->group_size != 0 && l->cols % l->group_size != 0;
}

static bool is_embedding(const nyb_inspect_layer *l)
{
    static const char *const modules[] = {"embed_tokens", "wte", "word_embeddings", "embed_in"};
    const char *const dot = strrchr(l->name, '.');
    bool found = false;
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++)
        found |= strcmp(dot ? dot + 1 : l->name, modules[i]) == 0;
    return found;
}

static bool packed_embedding(const nyb_inspect_layer *l)
{
    return is_embedding(l) && is_packed(l);
}

// One rule: when any quantised layer has the property, the program behaves so, for this reason.
typedef struct rule {
    int reader;
    predicate *applies;
    nyb_verdict verdict;
    const char *reason;
} rule;

static const rule rules[] = {
    {VLLM, gptq_odd_bits, NYB_LOADS_NOT, "reads gptq of 4 and 8 bits only"},
    {VLLM, gptq_asymmetric, NYB_LOADS_NOT, "reads symmetric gptq only"},
    {VLLM, is_gptq_v2, NYB_LOADS_NOT, "takes gptq_v2 for version 1: every zero point off by one"},
    {VLLM, gptq_irregular, NYB_LOADS_NOT, "refuses activation order with groups (desc_act)"},
    {VLLM, gptq_marlin_group, NYB_LOADS_NOT, "reads gptq with group sizes -1, 32, 64 and 128 only"},
    {VLLM, gptq_partial_group, NYB_LOADS_NOT, "wants whole groups"},
    {VLLM, gptq_off_tile, NYB_LOADS_IF,
     "on a GPU its kernels want inputs in multiples of 128 and outputs of 64"},
    {VLLM, awq_odd_group, NYB_LOADS_NOT, "reads awq with group sizes -1, 32, 64 and 128 only"},
    {VLLM, awq_partial_group, NYB_LOADS_NOT, "wants whole groups"},
    {VLLM, compressed_irregular, NYB_LOADS_NOT, "no longer reads weight_g_idx"},
    {VLLM, compressed_padded, NYB_LOADS_NOT,
     "reads 3 bits in the dense packing only; this is the older one"},
    {VLLM, compressed_partial_group, NYB_LOADS_NOT, "wants whole groups"},

    {VLLM, is_int_quantized, NYB_LOADS_IF,
     "int-quantized: with input_activations, and one scale per output channel"},

    {VLLM, is_embedding, NYB_LOADS_IF, "quantised embedding: if it reads those; not tried"},

    {TRANSFORMERS, is_any_gptq, NYB_LOADS_IF,
     "with the packages optimum >= 1.24 and gptqmodel >= 1.4.3"},
    {TRANSFORMERS, is_awq, NYB_LOADS_IF,
     "with the packages optimum >= 1.24 and gptqmodel >= 1.4.3"},
    {TRANSFORMERS, is_compressed, NYB_LOADS_IF, "with the package compressed-tensors >= 0.15"},
    {TRANSFORMERS, compressed_dense_three, NYB_LOADS_IF,
     "3 bits: a compressed-tensors release of June 2026 or later"},
    {TRANSFORMERS, compressed_padded, NYB_LOADS_IF,
     "3 bits: a compressed-tensors release before June 2026"},
    {TRANSFORMERS, compressed_irregular, NYB_LOADS_IF,
     "weight_g_idx: a compressed-tensors release before September 2026"},
    {TRANSFORMERS, compressed_asymmetric, NYB_LOADS_IF,
     "asymmetric: with dequantize=True, as nybble writes it into config.json"},
    {TRANSFORMERS, packed_embedding, NYB_LOADS_IF,
     "packed embedding: with dequantize=True, and one setting for all layers"},
    {TRANSFORMERS, compressed_partial_group, NYB_LOADS_NOT, "wants whole groups"},

    {TRANSFORMERS, is_fp8, NYB_LOADS_IF,
     "on a GPU, or with quantization_config=FineGrainedFP8Config(dequantize=True)"},
    {TRANSFORMERS, fp8_partial_block, NYB_LOADS_NOT,
     "takes fp8's blocks for smaller ones where a side is no multiple of 128"},

    {GPTQMODEL, is_fp8, NYB_LOADS_NOT, "is made for gptq, not for fp8"},
    {GPTQMODEL, is_compressed, NYB_LOADS_NOT, "is made for gptq, not for compressed-tensors"},
    {GPTQMODEL, gptq_odd_rows, NYB_LOADS_NOT, "wants outputs in multiples of 32"},
    {GPTQMODEL, gptq_odd_group, NYB_LOADS_NOT, "knows the group sizes -1 and 16 to 1024 only"},

    {LLAMA_CPP, is_awq, NYB_LOADS_NOT, "does not read awq"},
    {LLAMA_CPP, gptq_three_bits, NYB_LOADS_NOT, "reads gptq of 2, 4 and 8 bits only"},
    {LLAMA_CPP, is_gptq_v2, NYB_LOADS_NOT,
     "takes gptq_v2 for version 1: every zero point off by one"},
    {LLAMA_CPP, compressed_channel, NYB_LOADS_NOT,
     "reads compressed-tensors with groups only, not per channel"},
    {LLAMA_CPP, compressed_dense_three, NYB_LOADS_NOT, "reads 3 bits in the older packing only"},
    {LLAMA_CPP, is_fp8, NYB_LOADS_IF, "it dequantises to float"},
    {LLAMA_CPP, is_any_gptq, NYB_LOADS_IF, "it dequantises to float"},
    {LLAMA_CPP, is_compressed, NYB_LOADS_IF, "it dequantises to float"},
};

static bool any_layer(const nyb_inspection *in, predicate *applies)
{
    for (size_t i = 0; i < in->layer_count; i++) {
        if (in->layers[i].layout && applies(&in->layers[i]))
            return true;
    }
    return false;
}

static bool same_settings(const nyb_inspect_layer *a, const nyb_inspect_layer *b)
{
    if (!a->layout || !b->layout)
        return a->layout == b->layout;
    return strcmp(a->layout, b->layout) == 0 && a->bits == b->bits &&
           a->group_size == b->group_size && a->symmetric == b->symmetric;
}

static bool has_several_settings(const nyb_inspection *in)
{
    const nyb_inspect_layer *first = NULL;
    for (size_t i = 0; i < in->layer_count; i++) {
        const nyb_inspect_layer *const layer = &in->layers[i];
        if (!layer->layout)
            continue;
        if (first && !same_settings(first, layer))
            return true;
        first = layer;
    }
    return false;
}

static const nyb_inspect_layer *find_layer(const nyb_inspection *in, const char *prefix,
                                           size_t length, const char *part)
{
    size_t low = 0, high = in->layer_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const char *const name = in->layers[middle].name;
        int side = strncmp(prefix, name, length);
        if (side == 0)
            side = strcmp(part, name + length);
        if (side == 0)
            return &in->layers[middle];
        if (side < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

// vLLM runs these as one layer, so they have to have one setting.
static const char *const fused[][3] = {
    {"q_proj", "k_proj", "v_proj"},
    {"gate_proj", "up_proj", "up_proj"},
};

static bool has_mixed_parts(const nyb_inspection *in)
{
    for (size_t i = 0; i < in->layer_count; i++) {
        const nyb_inspect_layer *const layer = &in->layers[i];
        const char *const dot = strrchr(layer->name, '.');
        const size_t length = dot ? (size_t) (dot + 1 - layer->name) : 0;
        for (size_t f = 0; f < sizeof(fused) / sizeof(fused[0]); f++) {
            if (strcmp(layer->name + length, fused[f][0]) != 0)
                continue;
            for (size_t k = 1; k < 3; k++) {
                const nyb_inspect_layer *const other =
                    find_layer(in, layer->name, length, fused[f][k]);
                if (other && !same_settings(layer, other))
                    return true;
            }
        }
    }
    return false;
}

static void add_reason(nyb_inspect_reader *reader, nyb_verdict verdict, const char *reason)
{
    // A refusal makes conditions pointless.
    if (verdict > reader->verdict && verdict == NYB_LOADS_NOT)
        reader->reason_count = 0;
    if (verdict < reader->verdict || reader->reason_count == NYB_INSPECT_REASONS)
        return;
    reader->verdict = verdict;
    reader->reasons[reader->reason_count++] = reason;
}

// Rules that look at the whole.
static void judge_whole(nyb_inspect_reader *out, const nyb_inspection *in)
{
    bool quantized = false;
    for (size_t i = 0; i < in->layer_count; i++)
        quantized = quantized || in->layers[i].layout;

    const bool missing = in->unsupported_count > 0; // the line names the quantization's faults too
    const char *const own = in->fault && !missing ? in->fault
                            : in->model_fault     ? in->model_fault
                                                  : in->first_fault;
    if (own)
        add_reason(&out[NYBBLE], NYB_LOADS_NOT, own);
    if (in->gguf) {
        add_reason(&out[VLLM], NYB_LOADS_NOT, "reads folders of safetensors");
        add_reason(&out[TRANSFORMERS], NYB_LOADS_IF, "with gguf_file=, as float weights");
        add_reason(&out[GPTQMODEL], NYB_LOADS_NOT, "reads folders of safetensors");
        add_reason(&out[LLAMA_CPP], NYB_LOADS_NOT, "it is converted already: llama.cpp reads it");
        return;
    }
    if (in->fault) {
        for (size_t r = NYBBLE + 1; r < READERS; r++)
            add_reason(&out[r], NYB_LOADS_IF, "unknown: nybble does not read this quantization");
        return;
    }
    if (!in->model_type) {
        for (size_t r = 0; r < READERS; r++)
            add_reason(&out[r], NYB_LOADS_NOT, "wants a folder with config.json");
        return;
    }
    if (any_layer(in, is_unknown)) {
        for (size_t r = NYBBLE + 1; r < READERS; r++)
            add_reason(&out[r], NYB_LOADS_NOT, "config.json does not say how layers are packed");
        return;
    }
    if (!quantized)
        add_reason(&out[GPTQMODEL], NYB_LOADS_IF, "as a model to quantise");
    if (quantized && has_mixed_parts(in))
        add_reason(&out[VLLM], NYB_LOADS_NOT,
                   "runs q, k, v and gate, up as one layer each: their settings have to agree");
    if (any_layer(in, compressed_asymmetric) && has_several_settings(in))
        add_reason(&out[TRANSFORMERS], NYB_LOADS_NOT,
                   "reads asymmetric compressed-tensors with one setting for all layers only");
    if (any_layer(in, is_compressed) && has_several_settings(in))
        add_reason(&out[LLAMA_CPP], NYB_LOADS_NOT,
                   "reads compressed-tensors with one setting for all layers only");
}

void nyb_inspect_judge(nyb_inspect_reader *out, const nyb_inspection *inspection)
{
    for (size_t r = 0; r < READERS; r++)
        out[r] = (nyb_inspect_reader){.name = names[r]};
    judge_whole(out, inspection);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (any_layer(inspection, rules[i].applies))
            add_reason(&out[rules[i].reader], rules[i].verdict, rules[i].reason);
    }
}

size_t nyb_inspect_reader_count(void)
{
    return READERS;
}
