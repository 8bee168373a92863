// tokenizer_kinds.h - the names in the tables of tokenizer parts, for lists. NULL behind the last;
// "Sequence", which every part but the model has too, is not among them.
#ifndef NYB_MODEL_TOKENIZER_KINDS_H_
#define NYB_MODEL_TOKENIZER_KINDS_H_

#include <stddef.h>

const char *nyb_tokenizer_model_name_at(size_t index);
const char *nyb_normalizer_name_at(size_t index);
const char *nyb_pretokenizer_name_at(size_t index);
const char *nyb_postprocessor_name_at(size_t index);
const char *nyb_decoder_name_at(size_t index);

#endif // NYB_MODEL_TOKENIZER_KINDS_H_
