// docs/families.md lists the families that the table in model/arch.c has, row by row.
#include "../test.h"

#include <stdio.h>
#include <string.h>

#include "model/arch.h"

static const char *positions_of(const nyb_arch *a)
{
    if (a->positions == NYB_POSITIONS_LEARNED)
        return "learned";
    return a->alibi.key ? "rotary or linear biases" : "rotary";
}

static const char *attention_of(const nyb_arch *a)
{
    if (a->latent.kv_a)
        return "latent";
    return a->bidirectional ? "both ways" : a->qkv ? "fused" : "separate";
}

static void row_of(const nyb_arch *a, char *text, size_t room)
{
    static const char *const norms[] = {"RMS", "RMS, 1 + gain", "layer"};
    (void) snprintf(text, room, "| %s | `%s` | %s | %s | %s | %s |", a->about, a->model_type,
                    norms[a->norm], positions_of(a), attention_of(a),
                    a->experts.count_key ? "yes" : "");
}

static void every_family_is_in_the_page(void **state)
{
    (void) state;
    char line[400] = "", want[400];
    size_t index = 0;
    FILE *const page = fopen(NYB_DOCS "/families.md", "r");
    assert_non_null(page);
    while (fgets(line, sizeof(line), page)) {
        line[strcspn(line, "\n")] = '\0';
        if (!strstr(line, "| `"))
            continue;
        assert_non_null(nyb_arch_at(index));
        row_of(nyb_arch_at(index++), want, sizeof(want));
        assert_string_equal(line, want);
    }
    (void) fclose(page);
    if (nyb_arch_at(index)) {
        row_of(nyb_arch_at(index), want, sizeof(want));
        fail_msg("docs/families.md lacks: %s", want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_is_in_the_page),
    };
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
