#include "tests/test.h"

#include "formats/keras_einsum.h"
#include "tests/formats/folder.h"

static void axes_that_the_product_sums_over_are_found(void **state)
{
    nyb_keras_einsum einsum;
    (void) state;
    assert_ok(nyb_keras_einsum_read(&einsum, "abc,cde->abde", 3, err));
    assert_true(einsum.reduced[0] && !einsum.reduced[1] && !einsum.reduced[2]);
    assert_ok(nyb_keras_einsum_read(&einsum, "abcd,cde->abe", 3, err));
    assert_true(einsum.reduced[0] && einsum.reduced[1] && !einsum.reduced[2]);
    assert_ok(nyb_keras_einsum_read(&einsum, "btd,ndh->btnh", 3, err));
    assert_true(!einsum.reduced[0] && einsum.reduced[1] && !einsum.reduced[2]);
}

// With letters that come again the output alone would fill the lists of axes, and the axes that are
// summed over would go behind them.
static void letters_that_come_twice_are_refused(void **state)
{
    static const char *const equations[] = {
        "bxyzw,axyzw->baaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "bxyzvwu,axyzvwu->baaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "ab,bb->ab",
        "ab,bc->aa",
    };
    static const unsigned ranks[] = {5, 7, 2, 2};
    (void) state;
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        nyb_keras_einsum einsum;
        assert_fails(nyb_keras_einsum_read(&einsum, equations[i], ranks[i], err), NYB_E_FORMAT,
                     "same letter");
    }
}

// Of three axes the largest is the model's width.
static void kernels_have_one_or_two_axes_of_inputs(void **state)
{
    (void) state;
    assert_int_equal(nyb_keras_gptq_inputs(2, (size_t[]){3, 9}), 1);
    assert_int_equal(nyb_keras_gptq_inputs(3, (size_t[]){64, 4, 16}), 1);
    assert_int_equal(nyb_keras_gptq_inputs(3, (size_t[]){4, 16, 64}), 2);
    assert_int_equal(nyb_keras_gptq_inputs(3, (size_t[]){4, 64, 16}), 2);
    assert_int_equal(nyb_keras_gptq_inputs(1, (size_t[]){4}), 0);
    assert_int_equal(nyb_keras_gptq_inputs(4, (size_t[]){4, 4, 4, 4}), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(axes_that_the_product_sums_over_are_found),
        cmocka_unit_test(letters_that_come_twice_are_refused),
        cmocka_unit_test(kernels_have_one_or_two_axes_of_inputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
