#define _GNU_SOURCE           // memmem
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pattern.h"

#include <pcre2.h>

#include "model/unicode.h"

struct nyb_pattern {
    char *text; // plain text; NULL: an expression
    size_t length;
    pcre2_code *code;
};

struct nyb_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

enum {
    JIT_STACK_FIRST = 64 << 10,
    JIT_STACK_LIMIT = 16 << 20,
    HEAP_LIMIT_KIB = 256 << 10,
    MATCH_LIMIT = 10 << 20, // PCRE2's own default, more for long texts
};

nyb_status nyb_pattern_text(nyb_pattern **out, const char *text, size_t length, nyb_err *err)
{
    *out = NULL;
    if (length == 0)
        return nyb_fail(err, NYB_E_UNSUPPORTED, "a pattern of no text");
    nyb_pattern *const p = nyb_alloc(1, sizeof(*p));
    char *const copy = nyb_alloc(length + 1, 1);
    if (!p || !copy) {
        nyb_free(p);
        nyb_free(copy);
        return nyb_no_memory(err, "a pattern", length + 1, 1);
    }
    memcpy(copy, text, length);
    *p = (nyb_pattern){.text = copy, .length = length};
    *out = p;
    return NYB_OK;
}

static nyb_status compile(nyb_pattern *p, const nyb_bytes *text, nyb_err *err)
{
    int fault = 0;
    PCRE2_SIZE where = 0;
    p->code = pcre2_compile((PCRE2_SPTR) (text->count ? text->at : ""), text->count,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &fault, &where, NULL);
    if (!p->code) {
        PCRE2_UCHAR why[256] = {0};
        (void) pcre2_get_error_message(fault, why, sizeof(why));
        return nyb_fail(err, NYB_E_UNSUPPORTED, "pattern '%.*s' does not compile: %s at byte %zu",
                        (int) (text->count < 200 ? text->count : 200), text->count ? text->at : "",
                        (const char *) why, (size_t) where);
    }
    // Without a just-in-time compiler the interpreter does the same, slower.
    (void) pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    return NYB_OK;
}

nyb_status nyb_pattern_regex(nyb_pattern **out, const char *text, size_t length, nyb_err *err)
{
    nyb_bytes translated = {0};
    nyb_pattern *const p = nyb_alloc(1, sizeof(*p));
    *out = NULL;
    if (!p)
        return nyb_no_memory(err, "a pattern", 1, sizeof(*p));

    nyb_status status = nyb_pattern_translate(&translated, text, length, err);
    if (status == NYB_OK)
        status = nyb_bytes_status(&translated, err);
    if (status == NYB_OK)
        status = compile(p, &translated, err);
    nyb_bytes_clear(&translated);
    if (status == NYB_OK)
        *out = p;
    else
        nyb_pattern_free(p);
    return status;
}

void nyb_pattern_free(nyb_pattern *p)
{
    if (!p)
        return;
    nyb_free(p->text);
    pcre2_code_free(p->code);
    nyb_free(p);
}

nyb_status nyb_matcher_new(nyb_matcher **out, nyb_err *err)
{
    nyb_matcher *const m = nyb_alloc(1, sizeof(*m));
    *out = m;
    if (!m)
        return nyb_no_memory(err, "matching", 1, sizeof(*m));
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_LIMIT, NULL); // NULL: no compiler
    if (!m->data || !m->context) {
        nyb_matcher_free(m);
        *out = NULL;
        return nyb_no_memory(err, "matching", 1, JIT_STACK_FIRST);
    }
    if (m->stack)
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
    (void) pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    return NYB_OK;
}

void nyb_matcher_free(nyb_matcher *m)
{
    if (!m)
        return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    nyb_free(m);
}

static void find_text(const nyb_pattern *p, const char *text, size_t length, nyb_ranges *out)
{
    size_t before = 0;
    while (length - before >= p->length) {
        const char *const found = memmem(text + before, length - before, p->text, p->length);
        if (!found)
            break;
        const size_t begin = (size_t) (found - text);
        if (begin > before)
            nyb_ranges_add(out, before, begin, false);
        nyb_ranges_add(out, begin, begin + p->length, true);
        before = begin + p->length;
    }
    if (before < length)
        nyb_ranges_add(out, before, length, false);
}

static nyb_status match_fault(int fault, nyb_err *err)
{
    PCRE2_UCHAR why[256] = {0};
    (void) pcre2_get_error_message(fault, why, sizeof(why));
    if (fault == PCRE2_ERROR_NOMEMORY)
        return nyb_fail(err, NYB_E_NOMEM, "no memory for matching a pattern");
    return nyb_fail(err, NYB_E_NUMERIC, "a pattern cannot be matched on this text: %s",
                    (const char *) why);
}

static nyb_status find_regex(const nyb_pattern *p, nyb_matcher *m, const char *text, size_t length,
                             nyb_ranges *out, nyb_err *err)
{
    const PCRE2_SIZE *const pair = pcre2_get_ovector_pointer(m->data);
    size_t from = 0, before = 0;
    bool matched = false; // something ended at `before`

    const size_t limit = MATCH_LIMIT + 16 * length;
    (void) pcre2_set_match_limit(m->context, limit < UINT32_MAX ? (uint32_t) limit : UINT32_MAX);
    while (from <= length) {
        const int found = pcre2_match(p->code, (PCRE2_SPTR) text, length, from, PCRE2_NO_UTF_CHECK,
                                      m->data, m->context);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return match_fault(found, err);
        const size_t begin = pair[0], end = pair[1];
        if (begin == end && matched && begin == before) { // empty, directly behind a match
            if (from == length)
                break;
            (void) nyb_utf8_next(text, &from);
            continue;
        }
        if (begin > before)
            nyb_ranges_add(out, before, begin, false);
        nyb_ranges_add(out, begin, end, true);
        from = before = end;
        matched = true;
    }
    if (before < length)
        nyb_ranges_add(out, before, length, false);
    return NYB_OK;
}

nyb_status nyb_pattern_find(const nyb_pattern *pattern, nyb_matcher *matcher, const char *text,
                            size_t length, nyb_ranges *out, nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (length == 0)
        nyb_ranges_add(out, 0, 0, false);
    else if (pattern->text)
        find_text(pattern, text, length, out);
    else
        status = find_regex(pattern, matcher, text, length, out, err);
    return status == NYB_OK ? nyb_ranges_status(out, err) : status;
}
