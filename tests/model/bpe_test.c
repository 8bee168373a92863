#include "tests/test.h"

#include <string.h>
#include <time.h>

#include "model/bpe.h"

enum { LETTERS = 4, MERGES = 60, LONGEST = 400 };

// A random vocabulary over four letters and random merges of it.
typedef struct fixture {
    nyb_arena arena;
    nyb_vocabulary vocabulary;
    nyb_bpe bpe;
    nyb_bpe_scratch *scratch;
} fixture;

static void add(fixture *f, const char *text, size_t length)
{
    nyb_err err;
    const nyb_token token = {
        .text = text, .length = (uint32_t) length, .id = (uint32_t) f->vocabulary.count};
    assert_int_equal(nyb_vocabulary_add(&f->vocabulary, &f->arena, token, "test", &err), NYB_OK);
}

static void open_fixture(fixture *f, uint64_t seed)
{
    nyb_err err;
    memset(f, 0, sizeof(*f));
    assert_int_equal(nyb_vocabulary_init(&f->vocabulary, &f->arena, 0, &err), NYB_OK);
    for (size_t i = 0; i < LETTERS; i++)
        add(f, &"abcd"[i], 1);
    f->bpe = (nyb_bpe){.vocabulary = &f->vocabulary, .prefix = "", .suffix = "", .unknown = -1};
    f->bpe.merges = nyb_arena_alloc(&f->arena, MERGES, sizeof(nyb_merge));
    while (f->bpe.merge_count < MERGES) {
        const uint32_t left = (uint32_t) nyb_random_below(&seed, f->vocabulary.count);
        const uint32_t right = (uint32_t) nyb_random_below(&seed, f->vocabulary.count);
        const nyb_token *const a = nyb_vocabulary_at(&f->vocabulary, left);
        const nyb_token *const b = nyb_vocabulary_at(&f->vocabulary, right);
        char text[2 * LONGEST];
        if (a->length + b->length > 12)
            continue;
        memcpy(text, a->text, a->length);
        memcpy(text + a->length, b->text, b->length);
        if (nyb_vocabulary_find(&f->vocabulary, text, a->length + b->length) < 0)
            add(f, text, a->length + b->length);
        const int64_t whole = nyb_vocabulary_find(&f->vocabulary, text, a->length + b->length);
        f->bpe.merges[f->bpe.merge_count] = (nyb_merge){.left = left,
                                                        .right = right,
                                                        .rank = (uint32_t) f->bpe.merge_count,
                                                        .result = (uint32_t) whole};
        f->bpe.merge_count++;
    }
    assert_int_equal(nyb_bpe_finish(&f->bpe, &f->arena, &err), NYB_OK);
    assert_int_equal(nyb_bpe_scratch_new(&f->scratch, &err), NYB_OK);
}

static void close_fixture(fixture *f)
{
    nyb_bpe_scratch_free(f->scratch);
    nyb_arena_clear(&f->arena);
}

// The definition, word for word: look at all pairs, merge the leftmost of the lowest rank, and
// again. Of rules for one pair the last counts.
static size_t merge_by_definition(const nyb_bpe *bpe, uint32_t *ids, size_t count)
{
    for (;;) {
        const nyb_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            const nyb_merge *rule = NULL;
            for (size_t m = 0; m < bpe->merge_count; m++)
                if (bpe->merges[m].left == ids[i] && bpe->merges[m].right == ids[i + 1])
                    rule = &bpe->merges[m];
            if (rule && (!best || rule->rank < best->rank)) {
                best = rule;
                at = i;
            }
        }
        if (!best)
            return count;
        ids[at] = best->result;
        memmove(ids + at + 1, ids + at + 2, (count - at - 2) * sizeof(*ids));
        count--;
    }
}

static void random_words_merge_by_definition(void **state)
{
    (void) state;
    size_t merged = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        fixture f;
        uint64_t random = seed * 77;
        open_fixture(&f, seed);
        for (size_t round = 0; round < 60; round++) {
            char text[LONGEST];
            uint32_t want[LONGEST];
            nyb_tokens got = {0};
            nyb_err err;
            const size_t length = 1 + nyb_random_below(&random, round < 50 ? 30 : LONGEST);
            for (size_t i = 0; i < length; i++) {
                want[i] = (uint32_t) nyb_random_below(&random, LETTERS);
                text[i] = "abcd"[want[i]];
            }
            const size_t count = merge_by_definition(&f.bpe, want, length);
            assert_int_equal(nyb_bpe_encode(&f.bpe, f.scratch, text, length, &got, &err), NYB_OK);
            assert_int_equal(got.count, count);
            assert_memory_equal(got.at, want, count * sizeof(*want));
            merged += length - count;
            nyb_tokens_clear(&got);
        }
        close_fixture(&f);
    }
    assert_true(merged > 10000);
}

// a, aa, aaaa, ... up to 64: a million letters leave a heap no way out.
static void a_long_word_takes_little_time(void **state)
{
    enum { LENGTH = 1 << 20, WIDEST = 64 };
    (void) state;
    fixture f = {0};
    nyb_err err;
    char text[WIDEST + 1];
    nyb_merge merges[8];
    memset(text, 'a', sizeof(text));
    assert_int_equal(nyb_vocabulary_init(&f.vocabulary, &f.arena, 0, &err), NYB_OK);
    f.bpe = (nyb_bpe){
        .vocabulary = &f.vocabulary, .prefix = "", .suffix = "", .unknown = -1, .merges = merges};
    add(&f, text, 1);
    for (size_t width = 2; width <= WIDEST; width *= 2) {
        const uint32_t half = (uint32_t) f.vocabulary.count - 1;
        merges[f.bpe.merge_count] = (nyb_merge){
            .left = half, .right = half, .rank = (uint32_t) f.bpe.merge_count, .result = half + 1};
        f.bpe.merge_count++;
        add(&f, text, width);
    }
    assert_int_equal(nyb_bpe_finish(&f.bpe, &f.arena, &err), NYB_OK);
    assert_int_equal(nyb_bpe_scratch_new(&f.scratch, &err), NYB_OK);

    char *const word = nyb_alloc_raw(LENGTH, 1);
    nyb_tokens got = {0};
    assert_non_null(word);
    memset(word, 'a', LENGTH);
    const clock_t before = clock();
    assert_int_equal(nyb_bpe_encode(&f.bpe, f.scratch, word, LENGTH, &got, &err), NYB_OK);
    const double seconds = (double) (clock() - before) / CLOCKS_PER_SEC;
    print_message("a word of %d letters: %.3f s\n", LENGTH, seconds);
    assert_int_equal(got.count, LENGTH / WIDEST);
    assert_true(seconds < 20.0); // a quadratic way takes minutes, sanitizers take a few seconds

    nyb_tokens_clear(&got);
    nyb_free(word);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_words_merge_by_definition),
        cmocka_unit_test(a_long_word_takes_little_time),
    };
    return cmocka_run_group_tests_name("bpe", tests, NULL, NULL);
}
