// gguf.h - one GGUF file, version 2 or 3: metadata (keys with typed values), tensor descriptions,
// and the tensors' bytes, little-endian, each aligned.
//
// Source: ggml, docs/gguf.md, and the limits of its reference reader.
#ifndef NYB_FORMATS_GGUF_H_
#define NYB_FORMATS_GGUF_H_

#include "core/arena.h"
#include "core/file.h"

enum {
    NYB_GGUF_ALIGNMENT = 32, // of tensors, where general.alignment does not say otherwise
    NYB_GGUF_NAME_MOST = 63, // bytes of a tensor's name that the reference reader takes
    NYB_GGUF_RANK = 4,
};

// Numbers as the file has them.
typedef enum nyb_gguf_type {
    NYB_GGUF_U8 = 0,
    NYB_GGUF_I8,
    NYB_GGUF_U16,
    NYB_GGUF_I16,
    NYB_GGUF_U32,
    NYB_GGUF_I32,
    NYB_GGUF_F32,
    NYB_GGUF_BOOL,
    NYB_GGUF_TEXT,
    NYB_GGUF_ARRAY, // only ever the type of a value whose elements are of another type
    NYB_GGUF_U64,
    NYB_GGUF_I64,
    NYB_GGUF_F64,
    NYB_GGUF_TYPES
} nyb_gguf_type;

// A string of the file: UTF-8 or not, without a NUL behind it.
typedef struct nyb_gguf_text {
    const char *at;
    size_t length;
} nyb_gguf_text;

typedef struct nyb_gguf_value {
    const char *key;
    nyb_gguf_type type; // of the elements
    bool is_array;
    size_t count;               // elements, 1 unless it is an array
    const unsigned char *at;    // numbers: little-endian, may be misaligned
    const nyb_gguf_text *texts; // [count] of NYB_GGUF_TEXT
} nyb_gguf_value;

// An open file. Everything in it is the arena's or the mapping's.
typedef struct nyb_gguf {
    nyb_map map; // empty when parsed from memory
    nyb_arena arena;
    const char *path;
    unsigned version;
    nyb_gguf_value *values; // sorted by key
    size_t value_count;
    nyb_tensor *tensors; // in the file's order, names as in the file, shapes row-major
    size_t count;
} nyb_gguf;

// Maps the file and checks all of it: no reader of a value or a tensor checks an offset again.
//
// NYB_E_IO           the system refused.
// NYB_E_FORMAT       the file breaks the format: magic, version, a length that leads behind the
//                    end, a type that does not exist, a key or a name that is empty, too long,
//                    not UTF-8 or used twice, an alignment that is no power of two, rows that are
//                    not whole blocks, an offset other than the one that the sizes before it
//                    give, an overflow, tensors that end behind the file.
// NYB_E_UNSUPPORTED  version 1, a big-endian file, an array of arrays, a tensor of a type that
//                    nybble does not read; err names it.
// On every error *out is zeroed.
NYB_NODISCARD nyb_status nyb_gguf_open(nyb_gguf *out, const char *path, nyb_err *err);

// As nyb_gguf_open() for a file's bytes in memory, which have to outlive *out.
NYB_NODISCARD nyb_status nyb_gguf_parse(nyb_gguf *out, const void *bytes, size_t length,
                                        const char *name, nyb_err *err);

void nyb_gguf_close(nyb_gguf *file); // zeroed is fine

// Whether the file at `path` begins as a GGUF file does. False also when it cannot be read.
bool nyb_gguf_named(const char *path);

// NULL when there is no such key.
const nyb_gguf_value *nyb_gguf_find(const nyb_gguf *file, const char *key);

// The element as a number, whatever its type; 0 for texts. index < count.
double nyb_gguf_number(const nyb_gguf_value *value, size_t index);
int64_t nyb_gguf_integer(const nyb_gguf_value *value, size_t index);

bool nyb_gguf_is_integer(const nyb_gguf_value *value); // its elements are integers

// Each looks up a single value. A missing key leaves *out alone and is no error; a value of
// another kind or outside the range is NYB_E_FORMAT.
NYB_NODISCARD nyb_status nyb_gguf_size(const nyb_gguf *file, const char *key, size_t *out,
                                       nyb_err *err);
NYB_NODISCARD nyb_status nyb_gguf_real(const nyb_gguf *file, const char *key, double *out,
                                       nyb_err *err);
NYB_NODISCARD nyb_status nyb_gguf_bool(const nyb_gguf *file, const char *key, bool *out,
                                       nyb_err *err);
NYB_NODISCARD nyb_status nyb_gguf_string(const nyb_gguf *file, const char *key, nyb_gguf_text *out,
                                         nyb_err *err);

// ---- Types of tensors -----------------------------------------------------------------------

// The file's number for a type that nybble reads; -1 for others.
int nyb_gguf_type_of(nyb_dtype dtype);

// ---- Writing --------------------------------------------------------------------------------

// The head of a file that is being made. Zero-initialised it is empty. Once memory has run out,
// adding does nothing and nyb_gguf_finish() says so.
typedef struct nyb_gguf_head {
    nyb_arena arena;
    unsigned char *at;
    size_t length, room;
    size_t keys;
    bool full; // memory ran out
} nyb_gguf_head;

void nyb_gguf_head_clear(nyb_gguf_head *head);

void nyb_gguf_add_u32(nyb_gguf_head *head, const char *key, uint32_t value);
void nyb_gguf_add_f32(nyb_gguf_head *head, const char *key, float value);
void nyb_gguf_add_bool(nyb_gguf_head *head, const char *key, bool value);
void nyb_gguf_add_text(nyb_gguf_head *head, const char *key, const char *text);
void nyb_gguf_add_texts(nyb_gguf_head *head, const char *key, const nyb_gguf_text *texts,
                        size_t count);
void nyb_gguf_add_i32s(nyb_gguf_head *head, const char *key, const int32_t *values, size_t count);
void nyb_gguf_add_f32s(nyb_gguf_head *head, const char *key, const float *values, size_t count);

// A value of another file, as it is.
void nyb_gguf_add_value(nyb_gguf_head *head, const nyb_gguf_value *value);

// Bytes of an element of a type; 0 for texts.
size_t nyb_gguf_width(nyb_gguf_type type);

// What was added so far as a file without tensors, in the head's arena.
NYB_NODISCARD nyb_status nyb_gguf_head_bytes(nyb_gguf_head *head, const void **bytes,
                                             size_t *length, nyb_err *err);

// The file's bytes up to the first tensor, in the head's arena, and where each tensor starts in
// the file. Names are those of the GGUF file; sizes follow from dtype and shape.
//
//   names    [count]
//   offsets  [count], out, from the start of the file
//   end      out, the file's length
//
// NYB_E_ARG          a name is empty, longer than NYB_GGUF_NAME_MOST, or used twice.
// NYB_E_UNSUPPORTED  a dtype or rank that GGUF has no number for.
// NYB_E_NOMEM        no room, now or when something was added.
NYB_NODISCARD nyb_status nyb_gguf_finish(nyb_gguf_head *head, const nyb_tensor *tensors,
                                         const char *const *names, size_t count, size_t *offsets,
                                         size_t *end, nyb_err *err);

#endif // NYB_FORMATS_GGUF_H_
