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

static void plain_int4_takes_no_groups(void **state)
{
    (void) state;
    nyb_quantize_params params = NYB_QUANTIZE_DEFAULTS;
    nyb_recipe r;
    nyb_err err;
    params.settings.method = NYB_METHOD_INT4;
    params.given = NYB_SETTING_METHOD;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_OK);
    assert_int_equal(settings_of(&r, "x").group_size, 0);
    nyb_recipe_close(&r);
    params.given |= NYB_SETTING_GROUP_SIZE;
    assert_int_equal(nyb_recipe_open(&r, &params, &err), NYB_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_recipe_the_defaults_hold),
        cmocka_unit_test(the_more_specific_setting_wins),
        cmocka_unit_test(wrong_recipes_are_refused_by_name),
        cmocka_unit_test(plain_int4_takes_no_groups),
    };
    return cmocka_run_group_tests_name("recipe", tests, NULL, NULL);
}
