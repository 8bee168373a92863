// The configuration of fine-grained FP8, "quant_method": "fp8".
#include <string.h>

#include "formats/layout_parts.h"
#include "formats/quantization_rules.h"

nyb_status nyb_rules_read_block(nyb_layout_spec *spec, const nyb_quantization *q,
                                const json_t *value, const char *name, nyb_err *err)
{
    json_int_t sides[2] = {0};
    for (size_t i = 0; i < 2 && json_array_size(value) == 2; i++)
        sides[i] = json_integer_value(json_array_get(value, i));
    if (sides[0] < 1 || sides[1] < 1 || sides[0] > INT32_MAX || sides[1] > INT32_MAX)
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is no list of two sizes", q->name, name);
    spec->scale_rows = (size_t) sides[0];
    spec->group_size = (size_t) sides[1];
    return NYB_OK;
}

nyb_status nyb_rules_add_plain(nyb_quantization *q, const json_t *config, const char *key,
                               nyb_err *err)
{
    const json_t *const names = json_object_get(config, key);
    if (names && !json_is_null(names) && !json_is_array(names))
        return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' is not a list", q->name, key);
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *const name = json_string_value(json_array_get(names, i));
        if (!name)
            return nyb_fail(err, NYB_E_FORMAT, "%s: '%s' holds something not a string", q->name,
                            key);
        const nyb_status status = nyb_rules_add(q, NYB_RULE_PART, name, (nyb_quantized){0}, err);
        if (status != NYB_OK)
            return status;
    }
    return NYB_OK;
}

nyb_status nyb_rules_of_fp8(nyb_quantization *q, const json_t *config, nyb_err *err)
{
    nyb_quantized answer = {.layout = &nyb_layout_fp8,
                            .spec = {.kind = NYB_CODE_E4M3, .bits = 8, .symmetric = true}};
    const json_t *const block = json_object_get(config, "weight_block_size");
    const char *type = "e4m3", *inputs = "dynamic";
    nyb_status status = nyb_json_text(config, "fmt", &type, q->name, err);
    if (status == NYB_OK && strcmp(type, "e5m2") == 0)
        answer.spec.kind = NYB_CODE_E5M2;
    else if (status == NYB_OK && strcmp(type, "e4m3") != 0)
        status = nyb_fail(err, NYB_E_UNSUPPORTED,
                          "%s: floats of type '%s'; nybble reads e4m3 and e5m2", q->name, type);
    if (status == NYB_OK && block && !json_is_null(block)) {
        status = nyb_rules_read_block(&answer.spec, q, block, "weight_block_size", err);
    } else if (status == NYB_OK) { // one scale for all, under the other name
        answer.spec.scale_rows = SIZE_MAX;
        answer.layout = &nyb_layout_float_quantized;
    }
    if (status == NYB_OK)
        status = nyb_json_text(config, "activation_scheme", &inputs, q->name, err);
    // Readers round what is dynamic in groups, or by token, as they see fit.
    if (status == NYB_OK && strcmp(inputs, "static") == 0)
        answer.spec.inputs = NYB_ACTIVATIONS_FLOAT8_STATIC;
    else
        answer.spec.other_inputs = true;
    if (status == NYB_OK)
        status = nyb_rules_add_plain(q, config, "modules_to_not_convert", err);
    if (status == NYB_OK)
        status = nyb_rules_add_plain(q, config, "ignored_layers", err);
    return status == NYB_OK ? nyb_rules_add(q, NYB_RULE_ALL, "", answer, err) : status;
}
