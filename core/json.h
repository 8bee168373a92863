// json.h - reading JSON files with errors that name the file and the key. The values are
// jansson's; duplicate keys are refused everywhere.
#ifndef NYB_CORE_JSON_H_
#define NYB_CORE_JSON_H_

#include <jansson.h>

#include "core/status.h"
#include "nybble/tensor.h"

// Parses `length` bytes. `name` stands for the source in errors. *out is owned by the caller
// (json_decref).
//
// NYB_E_FORMAT  not JSON, a duplicate key, or nested deeper than jansson allows.
NYB_NODISCARD nyb_status nyb_json_parse(json_t **out, const char *text, size_t length,
                                        const char *name, nyb_err *err);

// Parses a file of at most 512 MiB.
NYB_NODISCARD nyb_status nyb_json_load(json_t **out, const char *path, nyb_err *err);

// Writes the document, indented by two spaces, in the order its keys were set, as
// nyb_file_write() does.
NYB_NODISCARD nyb_status nyb_json_save(const json_t *document, const char *path, nyb_err *err);

// Each of these looks up obj[key]. A missing key or null leaves *out alone and is no error; a
// value of the wrong kind or outside the range is NYB_E_FORMAT naming `name` and the key.
NYB_NODISCARD nyb_status nyb_json_size(const json_t *obj, const char *key, size_t *out,
                                       const char *name, nyb_err *err);
NYB_NODISCARD nyb_status nyb_json_real(const json_t *obj, const char *key, double *out,
                                       const char *name, nyb_err *err);
NYB_NODISCARD nyb_status nyb_json_bool(const json_t *obj, const char *key, bool *out,
                                       const char *name, nyb_err *err);
// The text belongs to obj.
NYB_NODISCARD nyb_status nyb_json_text(const json_t *obj, const char *key, const char **out,
                                       const char *name, nyb_err *err);

#endif // NYB_CORE_JSON_H_
