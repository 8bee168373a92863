#include <stdarg.h>
#include <stdio.h>

#include "cli/command.h"
#include "cli/text.h"

enum { COLUMNS_MAX = 24, GAP = 2 };

nyb_table nyb_table_new(const nyb_column *columns, size_t count)
{
    return (nyb_table){.columns = columns,
                       .count = count < COLUMNS_MAX ? count : COLUMNS_MAX,
                       .cells = json_array()};
}

void nyb_table_cell(nyb_table *table, const char *format, ...)
{
    char raw[1024], clean[1024];
    va_list args;
    va_start(args, format);
    (void) vsnprintf(raw, sizeof(raw), format, args);
    va_end(args);
    nyb_text_clean(clean, sizeof(clean), raw);
    (void) json_array_append_new(table->cells, json_string(clean));
}

static void print_row(const nyb_table *table, const size_t *widths, const char *const *row)
{
    size_t spaces = 0; // they wait for the next text, so that no line ends in them
    for (size_t i = 0; i < table->count; i++) {
        const size_t fill = widths[i] - nyb_text_width(row[i]);
        spaces += table->columns[i].right ? fill : 0;
        if (*row[i]) {
            (void) printf("%*s%s", (int) spaces, "", row[i]);
            spaces = 0;
        }
        spaces += GAP + (table->columns[i].right ? 0 : fill);
    }
    (void) putchar('\n');
}

static void row_of(const nyb_table *table, size_t first, const char **row)
{
    for (size_t i = 0; i < table->count; i++) {
        const char *const text = json_string_value(json_array_get(table->cells, first + i));
        row[i] = text ? text : "";
    }
}

void nyb_table_print(nyb_table *table)
{
    const size_t cells = json_array_size(table->cells);
    const char *row[COLUMNS_MAX] = {NULL};
    size_t widths[COLUMNS_MAX] = {0};

    for (size_t i = 0; i < table->count; i++)
        widths[i] = nyb_text_width(table->columns[i].title);
    for (size_t c = 0; c < cells; c += table->count) {
        row_of(table, c, row);
        for (size_t i = 0; i < table->count; i++) {
            const size_t width = nyb_text_width(row[i]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }

    for (size_t i = 0; i < table->count; i++)
        row[i] = table->columns[i].title;
    print_row(table, widths, row);
    for (size_t c = 0; c < cells; c += table->count) {
        row_of(table, c, row);
        print_row(table, widths, row);
    }
    json_decref(table->cells);
    table->cells = NULL;
}
