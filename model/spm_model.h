// spm_model.h - the content of a SentencePiece model file (a protobuf ModelProto).
#ifndef NYB_MODEL_SPM_MODEL_H_
#define NYB_MODEL_SPM_MODEL_H_

#include "core/arena.h"
#include "model/normalizer.h"

typedef enum nyb_spm_type {
    NYB_SPM_NORMAL = 1,
    NYB_SPM_UNKNOWN,
    NYB_SPM_CONTROL,
    NYB_SPM_USER_DEFINED,
    NYB_SPM_UNUSED,
    NYB_SPM_BYTE,
} nyb_spm_type;

typedef struct nyb_spm_piece {
    const char *text; // borrowed from the file's bytes, no NUL behind it
    size_t length;
    float score;
    nyb_spm_type type;
} nyb_spm_piece;

typedef struct nyb_spm_text {
    const char *at;
    size_t length;
} nyb_spm_text;

typedef struct nyb_spm_model {
    nyb_spm_piece *pieces; // [count] by id
    size_t count;
    uint64_t model_type; // 1 unigram, 2 BPE, 3 word, 4 character
    bool byte_fallback, whitespace_as_suffix;
    int64_t unk_id, bos_id, eos_id, pad_id; // negative: none
    nyb_spm_text unk_piece, bos_piece, eos_piece, pad_piece, unk_surface;
    nyb_spm_spaces spaces;
    nyb_spm_text charsmap;
    bool has_denormalizer;
} nyb_spm_model;

// Reads the file's bytes, which out borrows; its list of pieces is the arena's. `name` is the
// file for errors.
//
// NYB_E_FORMAT  the bytes are no such model, or break off.
NYB_NODISCARD nyb_status nyb_spm_model_read(nyb_spm_model *out, nyb_arena *arena, const char *at,
                                            size_t length, const char *name, nyb_err *err);

#endif // NYB_MODEL_SPM_MODEL_H_
