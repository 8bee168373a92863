// markup.h - HTML and SVG that grow piece by piece. As with nyb_bytes, adding never fails at the
// spot: nyb_bytes_status() tells at the end. Everything is well-formed XML as well as HTML.
#ifndef NYB_EVAL_MARKUP_H_
#define NYB_EVAL_MARKUP_H_

#include "model/bytes.h"

enum { NYB_NUMBER_TEXT = 48 };

// As it is: for our own constants.
void nyb_markup_put(nyb_bytes *out, const char *markup);

// printf of our own constants, numbers and what nyb_number_text() made. Text that came from
// anywhere else goes through nyb_markup_text().
__attribute__((format(printf, 2, 3))) void nyb_markup_format(nyb_bytes *out, const char *format,
                                                             ...);

// Text from outside, for content and for attributes in double quotes. What HTML or XML would take
// for markup is escaped; control characters, what turns the direction of text around, and what is
// no character become U+FFFD. The text is repaired where it is not UTF-8.
void nyb_markup_text(nyb_bytes *out, const char *text);

// At most `columns` columns of it, of which the last is an ellipsis when it was cut.
void nyb_markup_short(nyb_bytes *out, const char *text, size_t columns);

// Columns that the text takes, wide characters two.
size_t nyb_text_columns(const char *text);

// A measured number for people: 4 significant digits, a comma between thousands, and 1.234e-5 or
// 1.234e+9 where zeros would tell nothing. "-" for NaN.
const char *nyb_number_text(char out[NYB_NUMBER_TEXT], double value);

// A whole number with commas.
const char *nyb_count_text(char out[NYB_NUMBER_TEXT], double value);

// "1.500 GiB", "976 bytes".
const char *nyb_size_text(char out[NYB_NUMBER_TEXT], double bytes);

// The shortest decimal that reads back as the same double.
const char *nyb_exact_text(char out[NYB_NUMBER_TEXT], double value);

// <td> with a number: the exact one in an attribute, the one for people as its text. An empty cell
// says "-".
void nyb_markup_cell(nyb_bytes *out, double value,
                     const char *(*text)(char out[NYB_NUMBER_TEXT], double value));

#endif // NYB_EVAL_MARKUP_H_
