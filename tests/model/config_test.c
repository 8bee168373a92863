#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "model/rope.h"

// Reads the llama configuration below after these keys have been replaced. `change` is a JSON
// object; a key whose value is "-" is removed.
static nyb_status read_changed(nyb_model_config *out, const char *change, nyb_err *err)
{
    static const char base[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_hidden_layers\": 2,"
        " \"num_attention_heads\": 8, \"num_key_value_heads\": 4, \"intermediate_size\": 172,"
        " \"vocab_size\": 512, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-5,"
        " \"max_position_embeddings\": 512}";
    json_t *doc = NULL, *changes = NULL, *value = NULL;
    const char *key = NULL;
    assert_int_equal(nyb_json_parse(&doc, base, strlen(base), "base", NULL), NYB_OK);
    assert_int_equal(nyb_json_parse(&changes, change, strlen(change), "change", NULL), NYB_OK);
    json_object_foreach(changes, key, value)
    {
        if (json_is_string(value) && strcmp(json_string_value(value), "-") == 0)
            json_object_del(doc, key);
        else
            json_object_set(doc, key, value);
    }
    const nyb_status status = nyb_model_config_read(out, doc, "config.json", err);
    json_decref(doc);
    json_decref(changes);
    return status;
}

static nyb_model_config read_good(const char *change)
{
    nyb_model_config config;
    nyb_err err = {0};
    if (read_changed(&config, change, &err) != NYB_OK)
        fail_msg("%s: %s", change, err.text);
    return config;
}

static void defaults_are_filled_in(void **state)
{
    (void) state;
    nyb_model_config c = read_good("{}");
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.window, 0);
    assert_false(c.tied);
    assert_near(c.ropes[0].theta, 10000.0, 0.0);
    assert_int_equal(c.ropes[0].kind, NYB_ROPE_DEFAULT);
    assert_true(c.has_bos && c.bos == 1 && c.eos_count == 1 && c.eos[0] == 2);
    assert_int_equal(c.dtype, NYB_F32);

    c = read_good("{\"num_key_value_heads\": \"-\"}");
    assert_int_equal(c.kv_heads, 8);
    c = read_good("{\"num_key_value_heads\": null, \"head_dim\": null, \"rope_scaling\": null}");
    assert_int_equal(c.kv_heads, 8);
    c = read_good("{\"head_dim\": 32, \"num_attention_heads\": 6, \"num_key_value_heads\": 3}");
    assert_int_equal(c.head_dim, 32);
    c = read_good("{\"eos_token_id\": [5, 7, 9], \"bos_token_id\": null}");
    assert_true(!c.has_bos && c.eos_count == 3 && c.eos[2] == 9);
    c = read_good("{\"eos_token_id\": null}");
    assert_int_equal(c.eos_count, 0);
}

static void mistral_has_its_own_defaults(void **state)
{
    (void) state;
    nyb_model_config c = read_good("{\"model_type\": \"mistral\", \"num_key_value_heads\": \"-\"}");
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.window, 4096);
    c = read_good("{\"model_type\": \"mistral\", \"sliding_window\": null}");
    assert_int_equal(c.window, 0);
    c = read_good("{\"model_type\": \"mistral\", \"sliding_window\": 16}");
    assert_int_equal(c.window, 16);
}

static void both_spellings_of_the_rope_are_read(void **state)
{
    (void) state;
    nyb_model_config c = read_good("{\"rope_theta\": 5e5, \"torch_dtype\": \"bfloat16\"}");
    assert_near(c.ropes[0].theta, 5e5, 0.0);
    assert_int_equal(c.dtype, NYB_BF16);
    c = read_good("{\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"},"
                  " \"dtype\": \"float16\"}");
    assert_near(c.ropes[0].theta, 5e5, 0.0);
    assert_int_equal(c.dtype, NYB_F16);
    c = read_good("{\"rope_theta\": 9000, \"rope_scaling\": {\"type\": \"linear\","
                  " \"factor\": 4}}");
    assert_int_equal(c.ropes[0].kind, NYB_ROPE_LINEAR);
    assert_near(c.ropes[0].factor, 4.0, 0.0);
    assert_near(c.ropes[0].theta, 9000.0, 0.0);
    c = read_good("{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8,"
                  " \"low_freq_factor\": 1, \"high_freq_factor\": 4}}");
    assert_int_equal(c.ropes[0].kind, NYB_ROPE_LLAMA3);
    assert_near(c.ropes[0].original_positions, 512.0, 0.0);
}

static void bad_configurations_are_refused(void **state)
{
    (void) state;
    static const struct {
        const char *change;
        nyb_status status;
        const char *text; // has to appear in the error
    } cases[] = {
        {"{\"model_type\": \"gpt_banana\"}", NYB_E_UNSUPPORTED, "nybble help families"},
        {"{\"model_type\": \"-\"}", NYB_E_FORMAT, "'model_type' is missing"},
        {"{\"model_type\": 7}", NYB_E_FORMAT, "model_type"},
        {"{\"hidden_size\": \"-\"}", NYB_E_FORMAT, "'hidden_size' is missing"},
        {"{\"hidden_size\": 0}", NYB_E_FORMAT, "hidden_size"},
        {"{\"hidden_size\": -64}", NYB_E_FORMAT, "hidden_size"},
        {"{\"hidden_size\": 64.5}", NYB_E_FORMAT, "hidden_size"},
        {"{\"hidden_size\": \"64\"}", NYB_E_FORMAT, "hidden_size"},
        {"{\"hidden_size\": 9000000000000000000}", NYB_E_FORMAT, "hidden_size"},
        {"{\"hidden_size\": 65}", NYB_E_FORMAT, "no multiple"},
        {"{\"num_hidden_layers\": 0}", NYB_E_FORMAT, "num_hidden_layers"},
        {"{\"num_hidden_layers\": 100000000}", NYB_E_FORMAT, "num_hidden_layers"},
        {"{\"num_attention_heads\": 0}", NYB_E_FORMAT, "num_attention_heads"},
        {"{\"num_key_value_heads\": 3}", NYB_E_FORMAT, "no multiple"},
        {"{\"num_key_value_heads\": 16}", NYB_E_FORMAT, "no multiple"},
        {"{\"num_key_value_heads\": 0}", NYB_E_FORMAT, "num_key_value_heads"},
        {"{\"head_dim\": 7}", NYB_E_FORMAT, "even"},
        {"{\"head_dim\": 0}", NYB_E_FORMAT, "head_dim"},
        {"{\"vocab_size\": 99999999999}", NYB_E_FORMAT, "vocab_size"},
        {"{\"rms_norm_eps\": -1}", NYB_E_FORMAT, "rms_norm_eps"},
        {"{\"rms_norm_eps\": \"tiny\"}", NYB_E_FORMAT, "rms_norm_eps"},
        {"{\"hidden_act\": \"xielu\"}", NYB_E_UNSUPPORTED, "'xielu'"},
        {"{\"rope_theta\": 0}", NYB_E_FORMAT, "rope_theta"},
        {"{\"rope_theta\": -1e4}", NYB_E_FORMAT, "rope_theta"},
        {"{\"rope_scaling\": 5}", NYB_E_FORMAT, "not an object"},
        {"{\"rope_scaling\": {\"type\": \"spiral\", \"factor\": 2}}", NYB_E_UNSUPPORTED,
         "'spiral'"},
        {"{\"rope_scaling\": {\"type\": \"linear\"}}", NYB_E_FORMAT, "factor"},
        {"{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}", NYB_E_FORMAT, "factor"},
        {"{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"
         " \"high_freq_factor\": 4}}",
         NYB_E_FORMAT, "low_freq_factor"},
        {"{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
         NYB_E_UNSUPPORTED, "settings for layers of type"},
        {"{\"partial_rotary_factor\": 0.5}", NYB_E_UNSUPPORTED, "partial_rotary_factor"},
        {"{\"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}}",
         NYB_E_UNSUPPORTED, "partial_rotary_factor"},
        {"{\"sliding_window\": 128}", NYB_E_UNSUPPORTED, "sliding_window"},
        {"{\"model_type\": \"mistral\", \"sliding_window\": 0}", NYB_E_FORMAT, "sliding_window"},
        {"{\"model_type\": \"mistral\", \"attention_bias\": true}", NYB_E_UNSUPPORTED,
         "attention_bias"},
        {"{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", NYB_E_UNSUPPORTED,
         "layer_types"},
        {"{\"num_local_experts\": 8}", NYB_E_UNSUPPORTED, "num_local_experts"},
        {"{\"final_logit_softcapping\": 30.0}", NYB_E_UNSUPPORTED, "final_logit_softcapping"},
        {"{\"tie_word_embeddings\": 1}", NYB_E_FORMAT, "tie_word_embeddings"},
        {"{\"eos_token_id\": \"two\"}", NYB_E_FORMAT, "eos_token_id"},
        {"{\"bos_token_id\": 1.5}", NYB_E_FORMAT, "bos_token_id"},
        {"{\"torch_dtype\": \"float8\"}", NYB_E_UNSUPPORTED, "float8"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nyb_model_config config;
        nyb_err err = {0};
        const nyb_status status = read_changed(&config, cases[i].change, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].text))
            fail_msg("%s: status %d, want %d; '%s' should have '%s'", cases[i].change, (int) status,
                     (int) cases[i].status, err.text, cases[i].text);
    }
}

static void a_document_that_is_no_object_is_refused(void **state)
{
    (void) state;
    nyb_model_config config;
    json_t *const list = json_array();
    assert_int_equal(nyb_model_config_read(&config, list, "x", NULL), NYB_E_FORMAT);
    json_decref(list);
}

// Frequencies and rows against the formulas in f64.
static void rotary_angles_are_their_formula(void **state)
{
    (void) state;
    nyb_model_config c = read_good("{\"head_dim\": 64, \"rope_theta\": 5e5}");
    float frequencies[32], row[64];
    double worst = 0.0;
    nyb_rope_frequencies(frequencies, &c.ropes[0], 9000);
    for (size_t i = 0; i < 32; i++) {
        const double want = pow(5e5, -2.0 * (double) i / 64.0);
        worst = fmax(worst, fabs((double) frequencies[i] / want - 1.0));
    }
    for (size_t p = 0; p < 9000; p += 977) {
        nyb_rope_row(row, frequencies, 32, p, 1.0f);
        for (size_t i = 0; i < 32; i++) {
            const double angle = (double) p * (double) frequencies[i];
            worst = fmax(worst, fabs((double) row[i] - cos(angle)) / (1.0 + angle));
            worst = fmax(worst, fabs((double) row[32 + i] - sin(angle)) / (1.0 + angle));
        }
    }
    print_message("rotary positions: worst relative error %.2g (bound 2e-7)\n", worst);
    assert_true(worst < 2e-7);
}

static void llama3_scaling_bends_the_middle(void **state)
{
    (void) state;
    const char *const text =
        "{\"head_dim\": 64, \"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"llama3\","
        " \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4,"
        " \"original_max_position_embeddings\": 8192}}";
    const nyb_model_config plain = read_good("{\"head_dim\": 64, \"rope_theta\": 5e5}");
    const nyb_model_config c = read_good(text);
    size_t kept = 0, divided = 0, between = 0;
    float before[32], after[32];
    nyb_rope_frequencies(before, &plain.ropes[0], 1);
    nyb_rope_frequencies(after, &c.ropes[0], 1);
    for (size_t i = 0; i < 32; i++) {
        const double f = (double) before[i];
        const double got = (double) after[i] / f;
        const double turns = 8192.0 * f / 6.283185307179586; // in the original context
        const double smooth = (turns - 1.0) / 3.0;
        const double want = turns < 1.0 ? 0.125 : turns > 4.0 ? 1.0 : (1.0 - smooth) / 8.0 + smooth;
        assert_near(got, want, 1e-6);
        kept += turns > 4.0;
        divided += turns < 1.0;
        between += turns >= 1.0 && turns <= 4.0;
    }
    assert_true(kept > 0 && divided > 0 && between > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_filled_in),
        cmocka_unit_test(mistral_has_its_own_defaults),
        cmocka_unit_test(both_spellings_of_the_rope_are_read),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(a_document_that_is_no_object_is_refused),
        cmocka_unit_test(rotary_angles_are_their_formula),
        cmocka_unit_test(llama3_scaling_bends_the_middle),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
