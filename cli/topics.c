#include <stdio.h>
#include <string.h>

#include "cli/text.h"
#include "cli/topics.h"
#include "nybble/support.h"

enum { COLUMNS_MOST = 12 };

bool nyb_topic_exists(const char *name)
{
    for (size_t i = 0; nyb_support_topic_at(i); i++) {
        if (strcmp(nyb_support_topic_at(i)->name, name) == 0)
            return true;
    }
    return false;
}

void nyb_topics_list(FILE *out, size_t about_at, size_t width)
{
    for (size_t i = 0; nyb_support_topic_at(i); i++) {
        const nyb_support_topic *const topic = nyb_support_topic_at(i);
        (void) fprintf(out, "  %-*s", (int) about_at - 2, topic->name);
        nyb_text_wrap(out, topic->about, about_at, width);
    }
}

static const char *cell_at(const nyb_support_table *t, size_t row, size_t column)
{
    return t->cells[row * t->column_count + column];
}

static json_t *table_json(const nyb_support_table *t)
{
    json_t *const columns = json_array(), *const rows = json_array();
    for (size_t c = 0; c < t->column_count; c++)
        (void) json_array_append_new(columns, json_pack("{s:s, s:b}", "title", t->columns[c].title,
                                                        "code", t->columns[c].code));
    for (size_t r = 0; r < t->row_count; r++) {
        json_t *const row = json_array();
        for (size_t c = 0; c < t->column_count; c++)
            (void) json_array_append_new(row, json_string(cell_at(t, r, c)));
        (void) json_array_append_new(rows, row);
    }
    return json_pack("{s:s, s:s, s:o, s:o}", "name", t->name, "about", t->about, "columns", columns,
                     "rows", rows);
}

static void print_table(const nyb_support_table *t)
{
    nyb_column columns[COLUMNS_MOST] = {{0}};
    const size_t count = t->column_count < COLUMNS_MOST ? t->column_count : COLUMNS_MOST;
    for (size_t c = 0; c < count; c++)
        columns[c].title = t->columns[c].title;
    nyb_table cells = nyb_table_new(columns, count);
    for (size_t r = 0; r < t->row_count; r++) {
        for (size_t c = 0; c < count; c++)
            nyb_table_cell(&cells, "%s", cell_at(t, r, c));
    }
    nyb_table_print(&cells);
}

nyb_exit nyb_topic_print(const nyb_call *call, const char *name)
{
    nyb_support support;
    nyb_err err;
    if (nyb_support_open(&support, name, &err) != NYB_OK)
        return nyb_call_fail(call, &err);
    json_t *const document = call->json ? nyb_call_document(call) : NULL;
    json_t *const list = call->json ? json_array() : NULL;
    for (size_t i = 0; i < support.count; i++) {
        if (call->json) {
            (void) json_array_append_new(list, table_json(&support.tables[i]));
            continue;
        }
        (void) printf("%s%s:\n\n", i ? "\n" : "", support.tables[i].about);
        print_table(&support.tables[i]);
    }
    nyb_support_close(&support);
    if (call->json) {
        (void) json_object_set_new(document, "topic", json_string(name));
        (void) json_object_set_new(document, "tables", list);
        nyb_call_print_json(call, document);
    }
    return NYB_EXIT_OK;
}
