#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "model/sampler.h"

enum { VOCAB = 6, DRAWS = 20000 };

static const float logits[VOCAB] = {0.0f, 2.0f, -1.0f, 2.0f, 1.0f, -30.0f};

static void draw(const nyb_generate_params *params, size_t *counts)
{
    nyb_sampler s;
    assert_int_equal(nyb_sampler_init(&s, params, VOCAB, NULL), NYB_OK);
    memset(counts, 0, VOCAB * sizeof(*counts));
    for (size_t i = 0; i < DRAWS; i++) {
        uint32_t id = VOCAB;
        assert_int_equal(nyb_sampler_next(&s, logits, &id, NULL), NYB_OK);
        assert_true(id < VOCAB);
        counts[id]++;
    }
    nyb_sampler_clear(&s);
}

static void greedy_takes_the_first_of_equals(void **state)
{
    (void) state;
    size_t counts[VOCAB];
    nyb_generate_params params = NYB_GENERATE_DEFAULTS;
    draw(&params, counts);
    assert_int_equal(counts[1], DRAWS);
    params.temperature = 0.7;
    params.top_k = 1;
    draw(&params, counts);
    assert_int_equal(counts[1], DRAWS);
    params.top_k = 0;
    params.top_p = 1e-9;
    draw(&params, counts);
    assert_int_equal(counts[1], DRAWS);
}

// Frequencies are the softmax of logits / temperature, within five standard deviations.
static void draws_follow_the_probabilities(void **state)
{
    (void) state;
    size_t counts[VOCAB];
    nyb_generate_params params = NYB_GENERATE_DEFAULTS;
    params.temperature = 1.5;
    params.seed = 4;
    draw(&params, counts);
    double total = 0.0;
    for (size_t i = 0; i < VOCAB; i++)
        total += exp((double) logits[i] / 1.5);
    for (size_t i = 0; i < VOCAB; i++) {
        const double p = exp((double) logits[i] / 1.5) / total;
        assert_near((double) counts[i], p * DRAWS, 5.0 * sqrt(p * DRAWS) + 1e-3);
    }
}

static void cuts_leave_the_tail_out(void **state)
{
    (void) state;
    size_t counts[VOCAB];
    nyb_generate_params params = NYB_GENERATE_DEFAULTS;
    params.temperature = 1.0;
    params.top_k = 3;
    draw(&params, counts);
    assert_true(counts[1] > 0 && counts[3] > 0 && counts[4] > 0);
    assert_int_equal(counts[1] + counts[3] + counts[4], DRAWS);
    params.top_k = 0;
    params.top_p = 0.75; // the two leaders have 0.40 each
    draw(&params, counts);
    assert_true(counts[1] > 0 && counts[3] > 0);
    assert_int_equal(counts[1] + counts[3], DRAWS);
}

static void bad_settings_are_refused(void **state)
{
    (void) state;
    nyb_sampler s;
    nyb_generate_params params = NYB_GENERATE_DEFAULTS;
    params.temperature = -0.1;
    assert_int_equal(nyb_sampler_init(&s, &params, VOCAB, NULL), NYB_E_ARG);
    params.temperature = NAN;
    assert_int_equal(nyb_sampler_init(&s, &params, VOCAB, NULL), NYB_E_ARG);
    params.temperature = 1.0;
    params.top_p = 0.0;
    assert_int_equal(nyb_sampler_init(&s, &params, VOCAB, NULL), NYB_E_ARG);
    params.top_p = 1.0;
    assert_int_equal(nyb_sampler_init(&s, &params, VOCAB, NULL), NYB_OK);
    float bad[VOCAB] = {0};
    uint32_t id = 0;
    bad[4] = NAN;
    assert_int_equal(nyb_sampler_next(&s, bad, &id, NULL), NYB_E_NUMERIC);
    nyb_sampler_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_of_equals),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(cuts_leave_the_tail_out),
        cmocka_unit_test(bad_settings_are_refused),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
