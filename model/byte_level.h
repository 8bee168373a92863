// byte_level.h - GPT-2's alphabet: each byte as one printable character, so that any text is
// made of symbols that the vocabulary has.
#ifndef NYB_MODEL_BYTE_LEVEL_H_
#define NYB_MODEL_BYTE_LEVEL_H_

#include "model/bytes.h"

// Appends each byte's character.
void nyb_byte_level_put(nyb_bytes *out, const char *bytes, size_t length);

// The byte of a character, or -1.
int nyb_byte_level_byte(uint32_t c);

#endif // NYB_MODEL_BYTE_LEVEL_H_
