// hessian_store.h - Hessians of a model's inputs in one HDF5 file: made once, read by any number of
// runs, extended with more tokens, put together from parts.
//
// In the file (docs/store.md): attributes of the root say which model and settings the sums are of;
// "tokens" [samples, length] and, where some of them do not count, "marks" of the same shape are
// what was run; group "hessians/MODULE" has the sum over the input of a linear layer, "high" and
// "low" (gptq/hessian_sum.h), where "low" is there only if it is not zero. Layers that read the
// same input share one: the others' groups name the first in their attribute "same_as". Sums are
// written in the order of the model, and say their place in it: the same sums give the same bytes.
//
// Every array's SHA-256 is an attribute of its group, and is compared when it is read first.
#ifndef NYB_CALIB_HESSIAN_STORE_H_
#define NYB_CALIB_HESSIAN_STORE_H_

#include "calib/samples.h"
#include "core/hash.h"
#include "formats/hdf5.h"
#include "gptq/hessian_sum.h"

// What all parts of a store have in common.
typedef struct nyb_store_about {
    json_t *model;    // files of tensors with their hashes, and the configuration's
    json_t *settings; // what the sums depend on beside that
} nyb_store_about;

// Owned by the caller: nyb_store_about_clear(). A zeroed one is fine there.
//
//   all_experts  every expert's sums are over all tokens
//   samples      .length, .first_weight
//
// NYB_E_NOMEM  no room; out holds nothing.
NYB_NODISCARD nyb_status nyb_store_about_make(nyb_store_about *out, const nyb_context *ctx,
                                              const nyb_model *model, bool all_experts,
                                              const nyb_samples *samples, nyb_err *err);
void nyb_store_about_clear(nyb_store_about *about);

// ---- Reading --------------------------------------------------------------------------------

typedef struct nyb_hessian_store {
    nyb_arena arena;
    const char *path;
    nyb_hdf5 *file;
    nyb_store_about about;
    json_t *calibration;    // {"files", "machines"}
    size_t samples, length; // of the tokens
    size_t counted;         // tokens that count
    const char *digest;     // SHA-256 of everything in it
    bool unpacked;          // arrays are decoded into memory, which the file keeps while it is open
    json_t *sound;          // {name: true} arrays that were compared with their digest
} nyb_hessian_store;

// Opens a store; sums are looked at when they are read.
//
// NYB_E_FORMAT  it is no HDF5 file, no store, or damaged: err names what is missing.
// Others as nyb_hdf5_open(). On an error out holds nothing.
NYB_NODISCARD nyb_status nyb_hessian_store_open(nyb_hessian_store *out, const char *path,
                                                nyb_err *err);
void nyb_hessian_store_close(nyb_hessian_store *store); // zeroed is fine

// Opens the store at `path` and makes sure that it is this model's. What its products were made of is
// only looked at when ctx says what to make them of.
//
// Errors as nyb_hessian_store_open(), nyb_store_about_make() and nyb_hessian_store_check(). On an error
// out holds nothing.
NYB_NODISCARD nyb_status nyb_hessian_store_open_for(nyb_hessian_store *out, const nyb_context *ctx,
                                                    const char *path, const nyb_model *model,
                                                    bool all_experts, nyb_err *err);

// Whether the store is of this model and of these settings.
//
// NYB_E_ARG  it is not: err names the first difference, with both values.
NYB_NODISCARD nyb_status nyb_hessian_store_check(const nyb_hessian_store *store,
                                                 const nyb_store_about *about, const char *whose,
                                                 nyb_err *err);

// What the products behind the sums were made of.
nyb_compute nyb_hessian_store_compute(const nyb_hessian_store *store);

// The tokens, [samples, length], and their marks (NULL: all count), both in the arena.
//
// NYB_E_FORMAT  they are damaged.
NYB_NODISCARD nyb_status nyb_hessian_store_tokens(nyb_hessian_store *store, nyb_arena *arena,
                                                  uint32_t **ids, unsigned char **marks,
                                                  nyb_err *err);

typedef struct nyb_store_entry {
    size_t order;
    size_t tokens; // that the sum is over
    size_t routed; // that the layer's expert was sent; of other layers 0
} nyb_store_entry;

// NYB_E_FORMAT  the store has no sum of this layer.
NYB_NODISCARD nyb_status nyb_hessian_store_entry(const nyb_hessian_store *store, const char *module,
                                                 nyb_store_entry *out, nyb_err *err);

// Adds a layer's sum to `sum`, which is of order n.
//
// NYB_E_FORMAT  it is missing, damaged, or of another order; err names the array.
NYB_NODISCARD nyb_status nyb_hessian_store_add(const nyb_context *ctx, nyb_hessian_store *store,
                                               const char *module, nyb_hessian_sum *sum,
                                               nyb_err *err);

// The layer's Hessian of order n, in f32, as nyb_hessian_renew() makes one of `out`, which is zeroed
// or was used before. Errors as above; out->h.at is NULL then.
NYB_NODISCARD nyb_status nyb_hessian_store_read(nyb_hessian_store *store, const char *module,
                                                size_t n, nyb_hessian *out, nyb_err *err);

// All sums in their order: the layers of each, of which the first is its name. In the store's arena.
typedef struct nyb_store_sum {
    const char **modules;
    size_t count;
} nyb_store_sum;
NYB_NODISCARD nyb_status nyb_hessian_store_list(nyb_hessian_store *store, nyb_store_sum **out,
                                                size_t *count, nyb_err *err);

// ---- Writing --------------------------------------------------------------------------------

typedef struct nyb_hessian_writer {
    nyb_arena arena;
    nyb_hdf5_writer *file;
    const char *path, *partial; // the file's name, and what it is called until it is whole
    unsigned compress;          // 0: none, 1 to 9
    json_t *groups;             // their attributes
    size_t places;              // sums so far
} nyb_hessian_writer;

// NYB_E_EXISTS  path is there and force is not set. Others as nyb_hdf5_create().
NYB_NODISCARD nyb_status nyb_hessian_writer_open(nyb_hessian_writer *out, const char *path,
                                                 unsigned compress, bool force, nyb_err *err);

// Adds the sum of the input of these layers.
//
//   routed  tokens that the layers' expert was sent; of other layers 0
NYB_NODISCARD nyb_status nyb_hessian_writer_put(nyb_hessian_writer *writer,
                                                const char *const *modules, size_t count,
                                                const nyb_hessian_sum *sum, size_t routed,
                                                nyb_err *err);

// Adds what the store is about and gives the file its name.
//
//   samples      .ids, .marks, .count, .length, .counted
//   calibration  as in nyb_hessian_store
//
// NYB_E_IO  the file cannot be written.
NYB_NODISCARD nyb_status nyb_hessian_writer_finish(nyb_hessian_writer *writer,
                                                   const nyb_store_about *about,
                                                   const nyb_samples *samples,
                                                   const json_t *calibration, nyb_err *err);

// Removes the file unless it was finished. A zeroed writer is fine.
void nyb_hessian_writer_close(nyb_hessian_writer *writer);

#endif // NYB_CALIB_HESSIAN_STORE_H_
