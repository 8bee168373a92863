// hash.h - SHA-256, as hexadecimal text.
#ifndef NYB_CORE_HASH_H_
#define NYB_CORE_HASH_H_

#include <nettle/sha2.h>
#include <stddef.h>

enum { NYB_HASH_TEXT = 65 }; // 64 digits and a NUL

typedef struct nyb_hash {
    struct sha256_ctx state;
} nyb_hash;

void nyb_hash_init(nyb_hash *hash);
void nyb_hash_add(nyb_hash *hash, const void *bytes, size_t length);

// Writes the digest of everything added, in lower case. The hash starts anew.
void nyb_hash_text(nyb_hash *hash, char text[NYB_HASH_TEXT]);

// All three in one.
void nyb_hash_of(const void *bytes, size_t length, char text[NYB_HASH_TEXT]);

#endif // NYB_CORE_HASH_H_
