// protobuf.h - reading Protocol Buffers' wire format field by field, without a schema.
#ifndef NYB_MODEL_PROTOBUF_H_
#define NYB_MODEL_PROTOBUF_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum nyb_proto_wire {
    NYB_PROTO_VARINT = 0,
    NYB_PROTO_FIXED64 = 1,
    NYB_PROTO_BYTES = 2,
    NYB_PROTO_FIXED32 = 5,
} nyb_proto_wire;

typedef struct nyb_proto_field {
    uint32_t number;
    nyb_proto_wire wire;
    uint64_t value; // of the numeric kinds
    const char *at; // of NYB_PROTO_BYTES: borrowed from the message
    size_t length;
} nyb_proto_field;

// What is left of a message.
typedef struct nyb_proto {
    const char *at;
    size_t left;
    bool broken; // the bytes are no message, or end within a field
} nyb_proto;

static inline nyb_proto nyb_proto_of(const char *at, size_t length)
{
    return (nyb_proto){.at = at, .left = length};
}

// Takes the next field. False at the end, and when the message is broken.
bool nyb_proto_next(nyb_proto *message, nyb_proto_field *out);

// A NYB_PROTO_FIXED32 value as a float.
float nyb_proto_float(const nyb_proto_field *field);

#endif // NYB_MODEL_PROTOBUF_H_
