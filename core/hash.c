#include "core/hash.h"

void nyb_hash_init(nyb_hash *hash)
{
    sha256_init(&hash->state);
}

void nyb_hash_add(nyb_hash *hash, const void *bytes, size_t length)
{
    sha256_update(&hash->state, length, bytes);
}

void nyb_hash_text(nyb_hash *hash, char text[NYB_HASH_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_digest(&hash->state, sizeof(digest), digest);
    for (size_t i = 0; i < sizeof(digest); i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    text[NYB_HASH_TEXT - 1] = '\0';
}

void nyb_hash_of(const void *bytes, size_t length, char text[NYB_HASH_TEXT])
{
    nyb_hash hash;
    nyb_hash_init(&hash);
    nyb_hash_add(&hash, bytes, length);
    nyb_hash_text(&hash, text);
}
