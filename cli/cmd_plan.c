#include <stdio.h>

#include "cli/quantizing.h"

static json_t *document_of(const nyb_call *call, const nyb_quantize_plan *p)
{
    json_t *const doc = nyb_call_document(call);
    json_object_set_new(doc, "blocks", json_integer((json_int_t) p->blocks));
    json_object_set_new(doc, "layers", json_integer((json_int_t) p->layers));
    json_object_set_new(doc, "samples", json_integer((json_int_t) p->samples));
    json_object_set_new(doc, "sequence_length", json_integer((json_int_t) p->sequence_length));
    json_object_set_new(doc, "bits_per_weight", json_real(p->bits_per_weight));
    json_object_set_new(
        doc, "memory",
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "activations", (json_int_t) p->activation_bytes,
                  "weights", (json_int_t) p->weight_bytes, "hessians",
                  (json_int_t) p->hessian_bytes, "other", (json_int_t) p->other_bytes, "total",
                  (json_int_t) p->memory_bytes));
    json_object_set_new(doc, "spill_bytes", json_integer((json_int_t) p->spill_bytes));
    json_object_set_new(doc, "disk_bytes", json_integer((json_int_t) p->disk_bytes));
    json_object_set_new(doc, "flops",
                        json_pack("{s:f, s:f, s:f, s:f}", "forward", p->forward_flops, "hessian",
                                  p->hessian_flops, "factor", p->factor_flops, "solve",
                                  p->solve_flops));
    json_object_set_new(doc, "gemm_flops_per_second", json_real(p->gemm_flops_per_second));
    json_object_set_new(doc, "product_flops_per_second", json_real(p->product_flops_per_second));
    json_object_set_new(doc, "seconds", json_real(p->seconds));
    return doc;
}

static void print_row(const char *what, uint64_t bytes)
{
    char text[32];
    (void) printf("%-14s %12s\n", what, nyb_bytes_text(text, bytes));
}

static void print_plan(const nyb_quantize_plan *p)
{
    (void) printf("%zu layers in %zu blocks, %.2f bits per weight\n", p->layers, p->blocks,
                  p->bits_per_weight);
    if (p->tokens > 0)
        (void) printf("%zu windows of %zu tokens\n", p->samples, p->sequence_length);
    (void) printf("\nMemory at the peak, mapped files apart\n");
    print_row("  activations", p->activation_bytes);
    print_row("  weights", p->weight_bytes);
    print_row("  Hessian", p->hessian_bytes);
    print_row("  other", p->other_bytes);
    print_row("  total", p->memory_bytes);
    print_row("Disk", p->disk_bytes);
    if (p->spill_bytes > 0)
        print_row("  for the run", p->spill_bytes);
    (void) printf("\nWork, in 10^12 operations\n");
    (void) printf("%-14s %12.3f\n", "  forward", p->forward_flops * 1e-12);
    (void) printf("%-14s %12.3f\n", "  Hessians", p->hessian_flops * 1e-12);
    (void) printf("%-14s %12.3f\n", "  factors", p->factor_flops * 1e-12);
    (void) printf("%-14s %12.3f\n", "  solve", p->solve_flops * 1e-12);
    (void) printf("\nAbout %.0f s, at %.0f GFLOP/s measured now in the forward pass's products and "
                  "%.0f in the solver's\n",
                  p->seconds, p->product_flops_per_second * 1e-9, p->gemm_flops_per_second * 1e-9);
}

static nyb_exit run(const nyb_call *call)
{
    nyb_quantize_params params = nyb_quantizing_params(call);
    if (nyb_call_given(call, "target-bits"))
        return nyb_call_usage(call, "--target-bits is for quantize: plan the recipe that nybble "
                                    "allocate writes");
    nyb_quantize_plan plan;
    nyb_err err;
    if (!params.out)
        params.out = "";
    if (nyb_quantize_planned(&call->context, &params, &plan, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    if (call->json)
        nyb_call_print_json(call, document_of(call, &plan));
    else
        print_plan(&plan);
    return NYB_EXIT_OK;
}

const nyb_command nyb_command_plan = {
    .name = "plan",
    .about = "Tells what a quantize run would take: memory, disk, work and time",
    NYB_COMMAND_OPERANDS("MODEL", 1),
    NYB_COMMAND_OPTIONS(nyb_quantizing_options, nyb_quantizing, nyb_quantizing_defaults),
    .memory = true,
    .compute = true,
    .examples = (const nyb_example[]){{"nybble plan llama --calib text.txt -n 64 -l 512",
                                       "The same options as quantize; nothing is written."},
                                      {0}},
    .run = run,
};
