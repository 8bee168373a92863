#include "model/pieces.h"

#include "model/unicode.h"

void nyb_pieces_clear(nyb_pieces *pieces)
{
    nyb_bytes_clear(&pieces->text);
    nyb_bytes_clear(&pieces->spare_text);
    nyb_ranges_clear(&pieces->now);
    nyb_ranges_clear(&pieces->next);
    nyb_ranges_clear(&pieces->found);
    nyb_matcher_free(pieces->matcher);
    pieces->matcher = NULL;
}

// Puts matches and gaps together as the behavior says, in place. A flag that is still set then
// means: leave this one out.
static void merge_found(nyb_ranges *found, nyb_cut_behavior behavior)
{
    nyb_range *const at = found->at;
    size_t kept = 0;
    bool before = false; // the range before was a match
    if (behavior == NYB_CUT_REMOVED)
        return;
    for (size_t i = 0; i < found->count; i++) {
        const bool match = at[i].flag;
        const bool join = behavior == NYB_CUT_CONTIGUOUS             ? match == before
                          : behavior == NYB_CUT_MERGED_WITH_PREVIOUS ? match && !before
                                                                     : false;
        if (join && kept > 0)
            at[kept - 1].end = at[i].end;
        else
            at[kept++] = (nyb_range){.begin = at[i].begin, .end = at[i].end};
        before = match;
    }
    found->count = kept;
}

// From the back: a match joins what follows it, unless that is itself a match.
static void merge_with_next(nyb_ranges *found)
{
    nyb_range *const at = found->at;
    size_t kept = found->count; // at[kept ...] is done
    bool behind = false;        // the range behind was a match
    for (size_t i = found->count; i-- > 0;) {
        const bool match = at[i].flag;
        if (match && !behind && kept < found->count)
            at[kept].begin = at[i].begin;
        else
            at[--kept] = (nyb_range){.begin = at[i].begin, .end = at[i].end};
        behind = match;
    }
    memmove(at, at + kept, (found->count - kept) * sizeof(*at));
    found->count -= kept;
}

static void swap_ranges(nyb_ranges *a, nyb_ranges *b)
{
    const nyb_ranges kept = *a;
    *a = *b;
    *b = kept;
}

nyb_status nyb_pieces_cut(nyb_pieces *p, nyb_finder *find, const void *arg,
                          nyb_cut_behavior behavior, nyb_err *err)
{
    p->next.count = 0;
    for (size_t i = 0; i < p->now.count; i++) {
        const nyb_range piece = p->now.at[i];
        p->found.count = 0;
        nyb_status status = find(arg, p, p->text.at + piece.begin, piece.end - piece.begin, err);
        if (status == NYB_OK)
            status = nyb_ranges_status(&p->found, err);
        if (status != NYB_OK)
            return status;

        if (p->found.count > 0 && behavior == NYB_CUT_MERGED_WITH_NEXT)
            merge_with_next(&p->found);
        else
            merge_found(&p->found, behavior);
        for (size_t k = 0; k < p->found.count; k++) {
            const nyb_range cut = p->found.at[k];
            if (!cut.flag && cut.begin < cut.end)
                nyb_ranges_add(&p->next, piece.begin + cut.begin, piece.begin + cut.end,
                               piece.flag && cut.begin == 0);
        }
    }
    swap_ranges(&p->now, &p->next);
    return nyb_ranges_status(&p->now, err);
}

nyb_status nyb_find_pattern(const void *arg, nyb_pieces *p, const char *text, size_t length,
                            nyb_err *err)
{
    nyb_status status = NYB_OK;
    if (!p->matcher)
        status = nyb_matcher_new(&p->matcher, err);
    if (status == NYB_OK)
        status = nyb_pattern_find(arg, p->matcher, text, length, &p->found, err);
    return status;
}

void nyb_find_chars(nyb_pieces *p, const char *text, size_t length, bool (*is)(uint32_t c))
{
    size_t before = 0;
    for (size_t at = 0; at < length;) {
        const size_t begin = at;
        if (!is(nyb_utf8_next(text, &at)))
            continue;
        if (before < begin)
            nyb_ranges_add(&p->found, before, begin, false);
        nyb_ranges_add(&p->found, begin, at, true);
        before = at;
    }
    if (before < length)
        nyb_ranges_add(&p->found, before, length, false);
}

void nyb_pieces_invert(nyb_pieces *p)
{
    for (size_t i = 0; i < p->found.count; i++)
        p->found.at[i].flag = !p->found.at[i].flag;
}

nyb_status nyb_pieces_rewrite(nyb_pieces *p, nyb_rewriter *write, const void *arg, nyb_err *err)
{
    nyb_bytes_reset(&p->spare_text);
    for (size_t i = 0; i < p->now.count; i++) {
        nyb_range *const piece = &p->now.at[i];
        const size_t begin = p->spare_text.count;
        write(arg, p, p->text.at + piece->begin, piece->end - piece->begin, piece->flag);
        piece->begin = begin;
        piece->end = p->spare_text.count;
    }
    const nyb_bytes kept = p->text;
    p->text = p->spare_text;
    p->spare_text = kept;
    return nyb_bytes_status(&p->text, err);
}
