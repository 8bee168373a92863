// text.h - text on a terminal: how wide it is, wrapped, made harmless, and how alike two words
// are.
#ifndef NYB_CLI_TEXT_H_
#define NYB_CLI_TEXT_H_

#include <stddef.h>
#include <stdio.h>

// Columns that a terminal uses for UTF-8 text: 0 for combining marks, 2 for wide characters.
size_t nyb_text_width(const char *text);

// Copies `text` into out [size], cut at a character when longer. Control characters and broken
// UTF-8, which names in a file may hold, become '?', so that they cannot steer a terminal.
void nyb_text_clean(char *out, size_t size, const char *text);

// Prints words of `text` in lines of at most `width` columns. The first line starts where the
// cursor is, taken to be `indent`, and later ones after `indent` spaces. Ends the last line. An
// empty line in `text` parts paragraphs.
void nyb_text_wrap(FILE *out, const char *text, size_t indent, size_t width);

// Letters to insert, drop, replace or swap with a neighbour to turn a into b. Texts longer than
// 63 bytes are as far apart as can be.
size_t nyb_text_distance(const char *a, const char *b);

// Whether somebody who typed `typed` may have meant a word this many letters away.
int nyb_text_alike(const char *typed, size_t distance);

#endif // NYB_CLI_TEXT_H_
