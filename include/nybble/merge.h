// merge.h - a LoRA adapter added to the weights of its base.
//
// Source: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, "LoRA: Low-Rank Adaptation of Large
//         Language Models", arXiv:2106.09685, section 4.1; with use_rslora: Kalajdzievski, "A Rank
//         Stabilization Scaling Factor for Fine-Tuning with LoRA", arXiv:2312.03732.
#ifndef NYB_MERGE_H_
#define NYB_MERGE_H_

#include <stdbool.h>

#include "nybble/context.h"

typedef struct nyb_merge_params {
    const char *model;   // Hugging Face folder of the base, read only
    const char *adapter; // folder with adapter_config.json and adapter_model.safetensors
    const char *out;     // folder to be made
    size_t shard_bytes;  // of one output file, 0: 5 GB
    bool force;          // replace an existing output folder
    const char *command; // that asked for the run, kept in the report; UTF-8, NULL: unknown
} nyb_merge_params;

typedef struct nyb_merge_result {
    size_t layers;      // that gained something
    size_t requantized; // of these
    size_t replaced;    // tensors that the adapter brings whole
    // |Q - W|^2 / |W|^2 and |Q - W|^2 / |D|^2 over all these layers, with W the sum of base and
    // adapter, D the adapter's part, and Q what the output holds.
    double weight_error, delta_error;
    size_t bytes_in, bytes_out; // tensor files
    double seconds;
} nyb_merge_result;

// W + s B A for every module of the adapter, with s = alpha / r (alpha / sqrt(r) with use_rslora),
// and the adapter's own tensors (modules_to_save, biases) in place of the base's. Sums are made in
// double and rounded once to the type of the base's weight. A quantised layer is dequantised, gains
// its part, and is rounded to nearest with the layout and the settings that it has: bits, groups,
// symmetry. What the adapter does not touch is copied, bit for bit.
//
// The output is written as nyb_convert() does it; OUT/nybble_report.json has each layer's rank,
// scaling, and errors as above.
//
// NYB_E_UNSUPPORTED  an adapter other than LoRA, a setting or tensor of it that nybble does not
//                    merge (DoRA, embeddings, ...), or a module that is no linear layer of the
//                    base; err names it.
// NYB_E_SHAPE        a module of the adapter has another shape than the base's.
// Others as nyb_convert(). On an error nothing is at `out`, and OUT.partial is gone.
NYB_API NYB_NODISCARD nyb_status nyb_merge(const nyb_context *ctx, const nyb_merge_params *params,
                                           nyb_merge_result *result, nyb_err *err);

#endif // NYB_MERGE_H_
