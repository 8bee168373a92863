// point.h - one measured checkpoint as a record of JSON, nybble.point/1 (docs/report.md).
#ifndef NYB_EVAL_POINT_H_
#define NYB_EVAL_POINT_H_

#include "core/json.h"
#include "nybble/report.h"

// Text as JSON; what is not UTF-8 becomes U+FFFD. NULL when there is no memory.
json_t *nyb_point_text(const char *text);

// A record with what was measured. NULL when there is no memory. The caller owns it.
json_t *nyb_point_new(const char *name, const nyb_compared *row, bool base);

// How the text was scored, for a record's "data".
json_t *nyb_point_data(const nyb_eval_params *params, const nyb_eval_result *result);

// Adds what the checkpoint itself tells: method, settings, command and layers of its
// nybble_report.json where it has one, a histogram of its scales, and, of a base, histograms of its
// weights. Keys that the record has already are left alone.
//
// Errors as the checkpoint's files give them; the record may have got some keys.
NYB_NODISCARD nyb_status nyb_point_look(const nyb_context *ctx, json_t *point, const char *folder,
                                        nyb_err *err);

// Adds "sample": how the checkpoint goes on with `prompt`, always with the most probable token.
NYB_NODISCARD nyb_status nyb_point_speak(const nyb_context *ctx, json_t *point, const char *folder,
                                         const char *prompt, size_t new_tokens, nyb_err *err);

#endif // NYB_EVAL_POINT_H_
