// store.h - writes a set of tensors, known up front, into the safetensors files of a folder, in
// any order and without holding them.
//
// The folder is meant to be a temporary one that the caller renames when all is done. Files in
// it are complete in length from the start (a full disk is found then, not after hours) and
// complete in content after nyb_store_finish().
#ifndef NYB_FORMATS_STORE_H_
#define NYB_FORMATS_STORE_H_

#include "nybble/tensor.h"

typedef struct nyb_store nyb_store;

#define NYB_STORE_SHARD_BYTES ((size_t) 5000000000) // the default limit of one file

// Plans the files, creates them with their headers, reserves their space, and writes the index
// when there are shards: readers can open the folder from then on, and find zeros where nothing was
// put yet.
//
//   tensors      [count] what will be put: names, dtypes, shapes (nyb_tensor_describe()); `at`
//                is not read. Everything is copied.
//   shard_bytes  tensor bytes of one file; a larger tensor gets a file of its own. 0: no limit.
//                Tensors are dealt to shards in the order given, so that a block's tensors stay
//                together; one file is model.safetensors, more are model-0000i-of-0000N.
//
// NYB_E_ARG     a name is empty, not UTF-8 or used twice.
// NYB_E_EXISTS  one of the files is already there.
// NYB_E_IO      the system refused, for example because the disk is full.
// On an error *out is NULL, and files made by this call are removed.
NYB_NODISCARD nyb_status nyb_store_create(nyb_store **out, const char *folder,
                                          const nyb_tensor *tensors, size_t count,
                                          size_t shard_bytes, nyb_err *err);

// As nyb_store_create() for files that an earlier, interrupted run made with the same plan.
// Which tensors were put then is the caller's knowledge: nyb_store_mark() tells the store.
//
// NYB_E_IO      a file is missing or unreadable.
// NYB_E_FORMAT  a file has another length or header than planned.
// On an error *out is NULL and the files are as they were.
NYB_NODISCARD nyb_status nyb_store_reopen(nyb_store **out, const char *folder,
                                          const nyb_tensor *tensors, size_t count,
                                          size_t shard_bytes, nyb_err *err);

// Writes one tensor's bytes at their place. Putting a tensor again overwrites it. Threads may
// put different tensors at the same time.
//
// NYB_E_ARG    the store has no tensor of this name.
// NYB_E_SHAPE  `bytes` is not the planned length.
// NYB_E_IO     the system refused; the tensor does not count as put.
NYB_NODISCARD nyb_status nyb_store_put(nyb_store *store, const char *name, const void *at,
                                       size_t bytes, nyb_err *err);

// As nyb_store_put() for bytes of a mapping, which are released from memory behind the copy.
NYB_NODISCARD nyb_status nyb_store_put_mapped(nyb_store *store, const char *name, const void *at,
                                              size_t bytes, nyb_err *err);

// Counts a tensor as put by an earlier run. NYB_E_ARG: no tensor of this name.
NYB_NODISCARD nyb_status nyb_store_mark(nyb_store *store, const char *name, nyb_err *err);

bool nyb_store_has(const nyb_store *store, const char *name); // is planned
bool nyb_store_was_put(const nyb_store *store, const char *name);

// All that was put so far is on the disk when this returns.
NYB_NODISCARD nyb_status nyb_store_sync(nyb_store *store, nyb_err *err);

// Checks that every tensor was put, and syncs. The store is still to be closed.
//
// NYB_E_ARG  a tensor was never put; err names the first and counts them.
// NYB_E_IO   the system refused.
NYB_NODISCARD nyb_status nyb_store_finish(nyb_store *store, nyb_err *err);

// Files of the plan, and the sum of their lengths.
size_t nyb_store_files(const nyb_store *store);
const char *nyb_store_file(const nyb_store *store, size_t index); // path
size_t nyb_store_total_bytes(const nyb_store *store);

// Files stay as they are. NULL is fine.
void nyb_store_close(nyb_store *store);

#endif // NYB_FORMATS_STORE_H_
