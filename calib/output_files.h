// output_files.h - the small files of an output, beside its tensors.
#ifndef NYB_CALIB_OUTPUT_FILES_H_
#define NYB_CALIB_OUTPUT_FILES_H_

#include "calib/job.h"

// Copies tokenizer and other files of the source into the folder, and writes its configuration.
// What the arena receives is the caller's to clear.
//
// NYB_E_IO, NYB_E_FORMAT  as the file operations give them.
NYB_NODISCARD nyb_status nyb_output_save_files(const nyb_job *job, const char *folder,
                                               nyb_arena *arena, nyb_err *err);

#endif // NYB_CALIB_OUTPUT_FILES_H_
