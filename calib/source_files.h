// source_files.h - which files a run read, by their hashes.
#ifndef NYB_CALIB_SOURCE_FILES_H_
#define NYB_CALIB_SOURCE_FILES_H_

#include "core/json.h"
#include "formats/checkpoint.h"
#include "nybble/context.h"

// [{"file", "bytes", "sha256"}, ...] of the tensor files; NULL when there is no memory.
json_t *nyb_source_files(const nyb_context *ctx, const nyb_checkpoint *source);

// Their bytes together.
size_t nyb_source_bytes(const nyb_checkpoint *source);

// A path's last part.
const char *nyb_base_name(const char *path);

#endif // NYB_CALIB_SOURCE_FILES_H_
