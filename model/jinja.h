// jinja.h - a small, safe evaluator of the part of the Jinja language that chat templates are
// written in. A template reads the variables it is given and writes text; it reaches nothing else,
// and what it may take of time and memory is bounded.
//
// White space is handled as transformers sets Jinja up: trim_blocks and lstrip_blocks are on. What
// is not supported is refused by its name: statements when the template is read, filters, tests,
// methods and functions when they are reached.
#ifndef NYB_MODEL_JINJA_H_
#define NYB_MODEL_JINJA_H_

#include <jansson.h>

#include "model/bytes.h"

typedef struct nyb_jinja nyb_jinja;

// Reads a template of valid UTF-8, which is copied.
//
// NYB_E_FORMAT       it breaks the language's rules; err has the line.
// NYB_E_UNSUPPORTED  it uses a statement or an expression that is not supported.
NYB_NODISCARD nyb_status nyb_jinja_open(nyb_jinja **out, const char *text, size_t length,
                                        nyb_err *err);
void nyb_jinja_close(nyb_jinja *jinja); // NULL is fine

// Appends what the template makes of the variables (an object) to out, and to `generated`, where
// it is not NULL, the stretches of out that {% generation %} marks.
//
// NYB_E_ARG          the template calls raise_exception(); err has its text.
// NYB_E_FORMAT       an operation that its values do not allow.
// NYB_E_UNSUPPORTED  something that is not supported was reached.
// NYB_E_NUMERIC      it takes too many steps or too much memory.
NYB_NODISCARD nyb_status nyb_jinja_render(const nyb_jinja *jinja, const json_t *variables,
                                          nyb_bytes *out, nyb_ranges *generated, nyb_err *err);

#endif // NYB_MODEL_JINJA_H_
