#include "tests/test.h"

#include <string.h>
#include <unistd.h>

#include "calib/recipe.h"
#include "core/file.h"

// A file that lives as long as a test.
static const char *recipe_file(const char *text)
{
    static char path[64];
    nyb_err err;
    (void) snprintf(path, sizeof(path), "recipe_test_%d.json", (int) getpid());
    assert_int_equal(nyb_file_write(path, text, strlen(text), &err), NYB_OK);
    return path;
}

static nyb_settings settings_of(const nyb_recipe *recipe, const char *module)
{
    nyb_settings s = {0};
    nyb_err err;
    assert_int_equal(nyb_recipe_of(recipe, module, &s, &err), NYB_OK);
    return s;
}

static void without_a_recipe_the_defaults_hold(void **state)
{
    (void) state;
    const nyb_quantize_params params = NYB_QUANTIZE_DEFAULTS;
    nyb_recipe r;
    nyb_err err;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
    const nyb_settings s = settings_of(&r, "model.layers.0.mlp.up_proj");
    assert_int_equal(s.bits, 4);
    assert_int_equal(s.group_size, 128);
    assert_true(s.symmetric);
    nyb_recipe_close(&r);
}

// The more specific statement wins: defaults < recipe < caller < patterns, later patterns last.
static void the_more_specific_setting_wins(void **state)
{
    (void) state;
    nyb_quantize_params params = NYB_QUANTIZE_DEFAULTS;
    params.recipe =
        recipe_file("{\"weight_bits\": 3, \"group_size\": 64, \"symmetric\": false, \"modules\": ["
                    "{\"pattern\": \"*.mlp.*\", \"weight_bits\": 8, \"group_size\": -1},"
                    "{\"pattern\": \"*.down_proj\", \"weight_bits\": 2}]}");
    params.settings.group_size = 32;
    params.settings.bits = 4;
    params.given = NYB_SETTING_GROUP_SIZE;
    nyb_recipe r;
    nyb_err err;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
    (void) unlink(params.recipe);

    const nyb_settings q = settings_of(&r, "model.layers.0.self_attn.q_proj");
    assert_int_equal(q.bits, 3);
    assert_int_equal(q.group_size, 32);
    assert_false(q.symmetric);
    assert_int_equal(settings_of(&r, "model.layers.0.mlp.up_proj").bits, 8);
    const nyb_settings down = settings_of(&r, "model.layers.0.mlp.down_proj");
    assert_int_equal(down.bits, 2);
    assert_int_equal(down.group_size, 0);

    const char *const modules[] = {"model.layers.0.mlp.down_proj"};
    assert_null(nyb_recipe_unused(&r, modules, 1));
    assert_string_equal(nyb_recipe_unused(&r, modules, 0), "*.mlp.*");
    nyb_recipe_close(&r);
}

static void wrong_recipes_are_refused_by_name(void **state)
{
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"{\"weight_bitz\": 4}", "weight_bitz"},
        {"{\"weight_bits\": 5}", "5"},
        {"{\"weight_bits\": \"4\"}", "weight_bits"},
        {"{\"group_size\": 8}", "8"},
        {"{\"group_size\": -2}", "group_size"},
        {"{\"hessian_damping\": 1.5}", "1.5"},
        {"{\"method\": \"awq\"}", "awq"},
        {"{\"method\": \"int4\", \"weight_bits\": 3}", "int4"},
        {"{\"modules\": {}}", "modules"},
        {"{\"modules\": [{\"weight_bits\": 4}]}", "pattern"},
        {"{\"modules\": [{\"pattern\": \"*\", \"bits\": 4}]}", "bits"},
        {"[4]", "object"},
        {"{\"weight_bits\": 4, \"weight_bits\": 3}", "duplicate"},
    };
    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nyb_quantize_params params = NYB_QUANTIZE_DEFAULTS;
        params.recipe = recipe_file(cases[i].text);
        nyb_recipe r;
        nyb_err err = {0};
        assert_int_not_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
        if (!strstr(err.text, cases[i].named))
            fail_msg("'%s' does not name '%s'", err.text, cases[i].named);
        (void) unlink(params.recipe);
    }
}

static void modes_bring_their_own_settings(void **state)
{
    (void) state;
    nyb_quantize_params params = NYB_QUANTIZE_DEFAULTS;
    nyb_recipe r;
    nyb_err err;
    params.settings.method = NYB_METHOD_INT4;
    params.given = NYB_SETTING_METHOD;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
    assert_int_equal(settings_of(&r, "x").group_size, 0);
    assert_true(settings_of(&r, "x").symmetric);
    nyb_recipe_close(&r);
    params.given |= NYB_SETTING_GROUP_SIZE; // of 128
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
    assert_int_equal(settings_of(&r, "x").group_size, 128);
    assert_false(settings_of(&r, "x").symmetric);
    nyb_recipe_close(&r);
    params.settings.method = NYB_METHOD_INT8;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_E_ARG);
}

// Attention in int4, the feed-forward part in int8, one layer by GPTQ, one left alone.
static void a_recipe_can_mix_all_modes(void **state)
{
    (void) state;
    nyb_quantize_params params = NYB_QUANTIZE_DEFAULTS;
    params.recipe =
        recipe_file("{\"method\": \"int4\", \"modules\": ["
                    "{\"pattern\": \"*.mlp.*\", \"method\": \"int8\"},"
                    "{\"pattern\": \"*.up_proj\", \"method\": \"gptq\", \"weight_bits\": 3},"
                    "{\"pattern\": \"*.k_proj\", \"group_size\": 64},"
                    "{\"pattern\": \"*.v_proj\", \"method\": \"none\"}]}");
    nyb_recipe r;
    nyb_err err;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
    (void) unlink(params.recipe);
    const nyb_settings q = settings_of(&r, "a.q_proj"), k = settings_of(&r, "a.k_proj");
    const nyb_settings up = settings_of(&r, "a.mlp.up_proj");
    const nyb_settings down = settings_of(&r, "a.mlp.down_proj");
    assert_true(q.method == NYB_METHOD_INT4 && q.group_size == 0 && q.symmetric);
    assert_true(k.method == NYB_METHOD_INT4 && k.group_size == 64 && !k.symmetric);
    assert_true(down.method == NYB_METHOD_INT8 && down.bits == 8 && down.group_size == 0);
    assert_true(up.method == NYB_METHOD_GPTQ && up.bits == 3 && up.group_size == 128);
    assert_true(settings_of(&r, "a.v_proj").skip && !q.skip);
    nyb_recipe_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_recipe_the_defaults_hold),
        cmocka_unit_test(the_more_specific_setting_wins),
        cmocka_unit_test(wrong_recipes_are_refused_by_name),
        cmocka_unit_test(modes_bring_their_own_settings),
        cmocka_unit_test(a_recipe_can_mix_all_modes),
    };
    return cmocka_run_group_tests_name("recipe", tests, NULL, NULL);
}
