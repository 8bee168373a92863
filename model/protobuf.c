#include "model/protobuf.h"

#include <string.h>

static bool fail(nyb_proto *m)
{
    m->broken = true;
    m->left = 0;
    return false;
}

// Base-128, seven bits a byte, the lowest first; at most ten bytes.
static bool take_varint(nyb_proto *m, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->left == 0)
            return fail(m);
        const unsigned char byte = (unsigned char) *m->at++;
        m->left--;
        if (shift == 63 && byte > 1)
            return fail(m);
        value |= (uint64_t) (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return true;
        }
    }
    return fail(m);
}

static bool take_fixed(nyb_proto *m, size_t bytes, uint64_t *out)
{
    uint64_t value = 0;
    if (m->left < bytes)
        return fail(m);
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t) (unsigned char) m->at[i] << 8 * i;
    m->at += bytes;
    m->left -= bytes;
    *out = value;
    return true;
}

static bool take_bytes(nyb_proto *m, nyb_proto_field *out)
{
    uint64_t length = 0;
    if (!take_varint(m, &length) || length > m->left)
        return fail(m);
    out->at = m->at;
    out->length = (size_t) length;
    m->at += length;
    m->left -= (size_t) length;
    return true;
}

bool nyb_proto_next(nyb_proto *m, nyb_proto_field *out)
{
    uint64_t key = 0;
    *out = (nyb_proto_field){0};
    if (m->left == 0 || !take_varint(m, &key))
        return false;
    if (key >> 3 == 0 || key >> 3 >= 1u << 29)
        return fail(m);
    out->number = (uint32_t) (key >> 3);
    out->wire = (nyb_proto_wire) (key & 7);
    switch (out->wire) {
    case NYB_PROTO_VARINT:
        return take_varint(m, &out->value);
    case NYB_PROTO_FIXED64:
        return take_fixed(m, 8, &out->value);
    case NYB_PROTO_BYTES:
        return take_bytes(m, out);
    case NYB_PROTO_FIXED32:
        return take_fixed(m, 4, &out->value);
    default: // groups, long out of use, and what is not defined
        return fail(m);
    }
}

float nyb_proto_float(const nyb_proto_field *field)
{
    const uint32_t bits = (uint32_t) field->value;
    float value = 0;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
