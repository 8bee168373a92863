// hessian_parts.h - what reading and writing a store of Hessians share.
#ifndef NYB_CALIB_HESSIAN_PARTS_H_
#define NYB_CALIB_HESSIAN_PARTS_H_

#include <jansson.h>
#include <stdbool.h>

#include "core/hash.h"

#define NYB_STORE_SCHEMA "nybble.hessians/1"
#define NYB_STORE_GROUP  "hessians"
#define NYB_STORE_DIGEST "sha256" // attribute of the root: nyb_store_digest()
#define NYB_STORE_HIGH   "high_sha256"
#define NYB_STORE_LOW    "low_sha256"

// SHA-256 of all groups' attributes: {"": {...}, "hessians/MODULE": {...}, ...} as JSON with sorted
// keys, without the root's own digest. False when there is no memory.
bool nyb_store_digest(const json_t *groups, char text[NYB_HASH_TEXT]);

// Adds the texts that `from` has in its lists and `to` lacks: {"files": [...], "machines": [...]}.
void nyb_store_unite(json_t *to, const json_t *from);

#endif // NYB_CALIB_HESSIAN_PARTS_H_
