// gguf_folder.h - the small files of a Hugging Face folder, made of a GGUF file's metadata.
#ifndef NYB_MODEL_GGUF_FOLDER_H_
#define NYB_MODEL_GGUF_FOLDER_H_

#include "core/json.h"
#include "formats/gguf_names.h"

// config.json with the names that transformers has; *out is the caller's (json_decref).
//
// Errors as nyb_gguf_config().
NYB_NODISCARD nyb_status nyb_gguf_folder_config(json_t **out, const nyb_gguf *file, nyb_err *err);

// Writes the file's tokenizer into `folder`: tokenizer.json, or tokenizer.model where it is a
// SentencePiece model, and tokenizer_config.json with the special tokens and the chat template.
//
// NYB_E_FORMAT, NYB_E_UNSUPPORTED  the file has no tokenizer that nybble reads.
// NYB_E_IO, NYB_E_NOMEM            as the file operations give them.
NYB_NODISCARD nyb_status nyb_gguf_folder_tokenizer(const nyb_gguf *file, const char *folder,
                                                   nyb_err *err);

#endif // NYB_MODEL_GGUF_FOLDER_H_
