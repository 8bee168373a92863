// documents.h - JSON lines as documents: one text, or one conversation, a line.
#ifndef NYB_CALIB_DOCUMENTS_H_
#define NYB_CALIB_DOCUMENTS_H_

#include "calib/samples.h"
#include "nybble/tokenizer.h"

// Whether a file is read as JSON lines: its name says so, or conversations are asked for.
bool nyb_documents_named(const char *path, bool chat);

// Reads the file of out->path into out's ids, marks and documents. Between two documents stands the
// tokenizer's end-of-text token where it has one; conversations have what their template writes.
//
//   folder  the model's, for its chat template
//
// NYB_E_FORMAT       a line is no JSON, or has no such text; err has the line.
// NYB_E_UNSUPPORTED  the model has no chat template, or it uses what is not supported.
NYB_NODISCARD nyb_status nyb_documents_read(nyb_stream *out, const nyb_tokenizer *tokenizer,
                                            const char *folder, const nyb_samples_params *params,
                                            nyb_err *err);

#endif // NYB_CALIB_DOCUMENTS_H_
