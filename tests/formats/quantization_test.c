#include "tests/test.h"

#include "formats/quantization.h"
#include "tests/formats/folder.h"

static nyb_status open_text(nyb_quantization **out, const char *text, nyb_err *err)
{
    json_t *config = NULL;
    const nyb_status parsed = nyb_json_parse(&config, text, strlen(text), "test", err);
    assert_int_equal(parsed, NYB_OK);
    const nyb_status status = nyb_quantization_open(out, config, "config.json", err);
    json_decref(config);
    return status;
}

// Settings of one module as text: "gptq 4 g32 sym act", "-" when it is not quantised.
static const char *answer(nyb_arena *arena, const nyb_quantization *q, const char *module)
{
    nyb_quantized found;
    assert_ok(nyb_quantization_of(&found, q, module, err));
    if (!found.layout)
        return "-";
    return nyb_arena_format(arena, "%s %u g%zu %s%s", found.layout->name, found.spec.bits,
                            found.spec.group_size, found.spec.symmetric ? "sym" : "asym",
                            found.spec.irregular ? " act" : "");
}

typedef struct question {
    const char *module, *want;
} question;

static void ask(const char *config, const question *questions, size_t count)
{
    nyb_arena arena = {0};
    nyb_quantization *q = NULL;
    assert_ok(open_text(&q, config, err));
    for (size_t i = 0; i < count; i++)
        assert_string_equal(answer(&arena, q, questions[i].module), questions[i].want);
    nyb_quantization_close(q);
    nyb_arena_clear(&arena);
}

#define ASK(config, ...)                                                                           \
    do {                                                                                           \
        const question questions[] = {__VA_ARGS__};                                                \
        ask(config, questions, sizeof(questions) / sizeof(questions[0]));                          \
    } while (0)

static void gptq_configurations_are_read(void **state)
{
    (void) state;
    ASK("{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,"
        "\"sym\":true,\"desc_act\":false}}",
        {"model.layers.0.mlp.up_proj", "gptq 4 g128 sym"}, {"lm_head", "-"});
    ASK("{\"quantization_config\":{\"bits\":3,\"group_size\":-1,\"sym\":false,\"desc_act\":true,"
        "\"lm_head\":true,\"checkpoint_format\":\"gptq_v2\",\"dynamic\":null}}",
        {"a", "gptq_v2 3 g0 asym act"}, {"lm_head", "gptq_v2 3 g0 asym act"});
    // The first pattern that matches from the start decides.
    ASK("{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,"
        "\"dynamic\":{\"-:.*\\\\.o_proj\":{},\"+:m\\\\.1\\\\..*\":{\"bits\":8,\"group_size\":32},"
        "\"m\\\\.[0-9]+\\\\.down\":{\"sym\":false,\"desc_act\":true},\"down\":{\"bits\":2}}}}",
        {"m.0.o_proj", "-"}, {"m.1.o_proj", "-"}, {"m.1.down", "gptq 8 g32 sym"},
        {"m.2.down", "gptq 4 g128 asym act"}, {"m.0.up", "gptq 4 g128 sym"});
}

static void compressed_configurations_are_read(void **state)
{
    (void) state;
    ASK("{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
        "\"pack-quantized\",\"ignore\":[\"lm_head\",\"re:.*\\\\.gate$\"],\"kv_cache_scheme\":null,"
        "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,"
        "\"type\":\"int\",\"symmetric\":true,\"strategy\":\"group\",\"group_size\":64}},"
        "\"group_1\":{\"targets\":[\"m.0.up\",\"re:.*v_proj\"],\"input_activations\":null,"
        "\"weights\":{\"num_bits\":8,\"symmetric\":false,\"strategy\":\"channel\"}}}}}",
        {"m.0.q_proj", "compressed-tensors 4 g64 sym"}, {"m.0.up", "compressed-tensors 8 g0 asym"},
        {"m.0.up2", "compressed-tensors 4 g64 sym"}, {"m.0.v_proj", "compressed-tensors 8 g0 asym"},
        {"lm_head", "-"}, {"m.0.gate", "-"}, {"m.0.gates", "compressed-tensors 4 g64 sym"});
    // Without the class, what no target names is not quantised.
    ASK("{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
        "\"mixed-precision\",\"ignore\":null,\"config_groups\":{\"a\":{\"format\":"
        "\"pack-quantized\",\"targets\":[\"m\",\"Embedding\"],\"weights\":{\"num_bits\":2,"
        "\"group_size\":-1}}}}}",
        {"m", "compressed-tensors 2 g0 sym"}, {"n", "-"});
}

static void plain_checkpoints_have_none(void **state)
{
    nyb_quantization *q = NULL;
    nyb_quantized found;
    (void) state;
    assert_ok(open_text(&q, "{}", err));
    assert_null(q);
    assert_ok(open_text(&q, "{\"quantization_config\":null}", err));
    assert_null(q);
    assert_string_equal(nyb_quantization_method(q), "none");
    assert_ok(nyb_quantization_of(&found, q, "m", err));
    assert_null(found.layout);
}

#define GPTQ(more) "{\"quantization_config\":{\"quant_method\":\"gptq\"" more "}}"
#define CT(more)                                                                                   \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"                \
    "\"pack-quantized\"" more "}}"
#define GROUP(more) CT(",\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]" more "}}")

static void what_is_not_understood_is_refused(void **state)
{
    static const struct {
        const char *config;
        nyb_status status;
        const char *part;
    } cases[] = {
        {"{\"quantization_config\":[]}", NYB_E_FORMAT, "not an object"},
        {"{\"quantization_config\":{}}", NYB_E_FORMAT, "quant_method"},
        {"{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}", NYB_E_UNSUPPORTED,
         "bitsandbytes"},
        {"{\"quantization_config\":{\"quant_method\":4}}", NYB_E_FORMAT, "quant_method"},
        {GPTQ(""), NYB_E_UNSUPPORTED, "0-bit"},
        {GPTQ(",\"bits\":4"), NYB_E_FORMAT, "group_size"},
        {GPTQ(",\"bits\":5,\"group_size\":128"), NYB_E_UNSUPPORTED, "5-bit"},
        {GPTQ(",\"bits\":4294967300,\"group_size\":128"), NYB_E_UNSUPPORTED, "4294967300"},
        {GPTQ(",\"bits\":\"4\",\"group_size\":128"), NYB_E_FORMAT, "bits"},
        {GPTQ(",\"bits\":4,\"group_size\":0"), NYB_E_FORMAT, "group_size"},
        {GPTQ(",\"bits\":4,\"group_size\":-2"), NYB_E_FORMAT, "group_size"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"sym\":1"), NYB_E_FORMAT, "sym"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"checkpoint_format\":\"gptq_p\""), NYB_E_UNSUPPORTED,
         "gptq_p"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"pack_dtype\":\"int8\""), NYB_E_UNSUPPORTED, "int8"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"dynamic\":[]"), NYB_E_FORMAT, "dynamic"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"dynamic\":{\"(\":{}}"), NYB_E_FORMAT, "pattern"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"dynamic\":{\"a\":{\"bits\":7}}"), NYB_E_UNSUPPORTED,
         "7-bit"},
        {GPTQ(",\"bits\":4,\"group_size\":32,\"dynamic\":{\"a\":3}"), NYB_E_FORMAT, "'a'"},
        {CT(""), NYB_E_FORMAT, "config_groups"},
        {CT(",\"config_groups\":{\"g\":3}"), NYB_E_FORMAT, "targets"},
        {CT(",\"config_groups\":{\"g\":{\"targets\":[3]}}"), NYB_E_FORMAT, "not a string"},
        {CT(",\"ignore\":\"x\",\"config_groups\":{\"g\":{\"targets\":[]}}"), NYB_E_FORMAT,
         "ignore"},
        {CT(",\"kv_cache_scheme\":{\"num_bits\":8}"), NYB_E_UNSUPPORTED, "kv_cache_scheme"},
        {CT(",\"sparsity_config\":{\"format\":\"sparse-24-bitmask\"}"), NYB_E_UNSUPPORTED,
         "sparsity_config"},
        {CT(",\"transform_config\":{\"a\":1}"), NYB_E_UNSUPPORTED, "transform_config"},
        {GROUP(",\"weights\":3"), NYB_E_FORMAT, "weights"},
        {GROUP(",\"output_activations\":{}"), NYB_E_UNSUPPORTED, "activations"},
        {GROUP(",\"format\":\"mxfp8-quantized\""), NYB_E_UNSUPPORTED, "mxfp8-quantized"},
        {GROUP(",\"weights\":{\"num_bits\":4,\"type\":\"float\"}"), NYB_E_UNSUPPORTED, "float"},
        {GROUP(",\"weights\":{\"num_bits\":6}"), NYB_E_UNSUPPORTED, "6-bit"},
        {GROUP(",\"weights\":{\"num_bits\":4,\"strategy\":\"block\"}"), NYB_E_UNSUPPORTED, "block"},
        {GROUP(",\"weights\":{\"num_bits\":4,\"strategy\":\"group\"}"), NYB_E_FORMAT, "group_size"},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
         "\"nvfp4-pack-quantized\"}}",
         NYB_E_UNSUPPORTED, "nvfp4"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nyb_quantization *q = NULL;
        assert_fails(open_text(&q, cases[i].config, err), cases[i].status, cases[i].part);
        assert_null(q);
    }
}

// A pattern that takes ever more steps ends with an error, not with a hang.
static void hostile_patterns_end(void **state)
{
    nyb_quantization *q = NULL;
    nyb_quantized found;
    (void) state;
    assert_ok(
        open_text(&q, GPTQ(",\"bits\":4,\"group_size\":32,\"dynamic\":{\"(a|aa)+$\":{}}"), err));
    assert_fails(
        nyb_quantization_of(&found, q, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", err),
        NYB_E_FORMAT, "cannot be matched");
    nyb_quantization_close(q);
}

// ---- What is written is understood ------------------------------------------------------------

enum { MODULES = 7 };

static const nyb_layout_module modules[MODULES] = {
    {.name = "m.layers.0.q",
     .quantized = true,
     .spec = {.rows = 64,
              .cols = 64,
              .bits = 4,
              .group_size = 32,
              .symmetric = true,
              .scale_dtype = NYB_F16}},
    {.name = "m.layers.0.k",
     .quantized = true,
     .spec = {.rows = 64,
              .cols = 64,
              .bits = 4,
              .group_size = 32,
              .symmetric = true,
              .scale_dtype = NYB_F16}},
    {.name = "m.layers.0.up",
     .quantized = true,
     .spec = {.rows = 64,
              .cols = 64,
              .bits = 8,
              .group_size = 0,
              .symmetric = false,
              .scale_dtype = NYB_F16}},
    {.name = "m.layers.1.q",
     .quantized = true,
     .spec = {.rows = 64,
              .cols = 64,
              .bits = 4,
              .group_size = 32,
              .symmetric = true,
              .scale_dtype = NYB_F16}},
    {.name = "m.layers.1.k[+]", .quantized = false, .spec = {0}},
    {.name = "m.layers.1.up",
     .quantized = true,
     .spec = {.rows = 64,
              .cols = 64,
              .bits = 3,
              .group_size = 64,
              .symmetric = true,
              .scale_dtype = NYB_F16}},
    {.name = "lm_head", .quantized = false, .spec = {0}},
};

static void check_module(const nyb_layout *layout, const nyb_quantization *q,
                         const nyb_layout_module *module)
{
    nyb_quantized found;
    assert_ok(nyb_quantization_of(&found, q, module->name, err));
    assert_ptr_equal(found.layout, module->quantized ? layout : NULL);
    if (!module->quantized)
        return;
    assert_int_equal(found.spec.bits, module->spec.bits);
    assert_int_equal(found.spec.group_size, module->spec.group_size);
    assert_int_equal(found.spec.symmetric, module->spec.symmetric);
    assert_int_equal(found.spec.irregular, module->spec.irregular);
}

static void written_configurations_are_read(void **state)
{
    (void) state;
    for (size_t i = 0; i < nyb_layout_count(); i++) {
        const nyb_layout *const layout = nyb_layout_at(i);
        for (size_t count = layout->check_run ? MODULES + 1 : 1; count <= MODULES; count++) {
            const nyb_layout_run run = {.modules = modules, .count = count, .damp = 0.01};
            json_t *const config = json_pack("{s:o}", "quantization_config", layout->config(&run));
            nyb_quantization *q = NULL;
            assert_non_null(config);
            assert_ok(nyb_quantization_open(&q, config, "config.json", err));
            for (size_t k = 0; k < count; k++)
                check_module(layout, q, &modules[k]);
            nyb_quantization_close(q);
            json_decref(config);
        }
    }
}

// AWQ has one setting for all layers, and lists those that it leaves out.
static void awq_has_one_setting(void **state)
{
    const nyb_layout_spec spec = {
        .rows = 64, .cols = 64, .bits = 4, .group_size = 32, .scale_dtype = NYB_F16};
    nyb_layout_module some[] = {{.name = "m.layers.0.q", .quantized = true, .spec = spec},
                                {.name = "m.layers.0.k", .quantized = true, .spec = spec},
                                {.name = "lm_head"}};
    const nyb_layout_run run = {.modules = some, .count = 3};
    const nyb_layout *const layout = nyb_layout_by_name("awq");
    json_t *const config = json_pack("{s:o}", "quantization_config", layout->config(&run));
    nyb_quantization *q = NULL;
    (void) state;
    assert_ok(layout->check_run(&run, err));
    assert_ok(nyb_quantization_open(&q, config, "config.json", err));
    for (size_t k = 0; k < 3; k++)
        check_module(layout, q, &some[k]);
    nyb_quantization_close(q);
    json_decref(config);
    some[1].spec.group_size = 64;
    assert_fails(layout->check_run(&run, err), NYB_E_UNSUPPORTED, "one group size");
}

static void folders_are_asked(void **state)
{
    static const char config[] = "{\"model_type\":\"llama\"}";
    static const char separate[] = "{\"bits\":4,\"group_size\":128,\"desc_act\":false}";
    nyb_quantization *q = NULL;
    folder f;
    (void) state;
    folder_make(&f);
    assert_ok(nyb_quantization_load(&q, f.path, err));
    assert_null(q);
    folder_write(&f, "config.json", config, strlen(config));
    assert_ok(nyb_quantization_load(&q, f.path, err));
    assert_null(q);
    folder_write(&f, "quantize_config.json", separate, strlen(separate));
    assert_ok(nyb_quantization_load(&q, f.path, err));
    assert_string_equal(nyb_quantization_method(q), "gptq");
    nyb_quantization_close(q);
    folder_clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq_configurations_are_read),
        cmocka_unit_test(compressed_configurations_are_read),
        cmocka_unit_test(plain_checkpoints_have_none),
        cmocka_unit_test(what_is_not_understood_is_refused),
        cmocka_unit_test(hostile_patterns_end),
        cmocka_unit_test(written_configurations_are_read),
        cmocka_unit_test(awq_has_one_setting),
        cmocka_unit_test(folders_are_asked),
    };
    return cmocka_run_group_tests_name("quantization", tests, NULL, NULL);
}
