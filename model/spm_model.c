#include "model/spm_model.h"

#include <math.h>

#include "model/protobuf.h"
#include "model/unicode.h"
#include "model/vocabulary.h"

static nyb_status broken(const char *name, const char *what, nyb_err *err)
{
    return nyb_fail(err, NYB_E_FORMAT, "%s: %s: broken off or no SentencePiece model", name, what);
}

static nyb_status read_piece(nyb_spm_piece *out, nyb_proto message, size_t id, const char *name,
                             nyb_err *err)
{
    nyb_proto_field field;
    *out = (nyb_spm_piece){.text = "", .type = NYB_SPM_NORMAL};
    while (nyb_proto_next(&message, &field)) {
        if (field.number == 1 && field.wire == NYB_PROTO_BYTES) {
            out->text = field.at;
            out->length = field.length;
        } else if (field.number == 2 && field.wire == NYB_PROTO_FIXED32) {
            out->score = nyb_proto_float(&field);
        } else if (field.number == 3 && field.wire == NYB_PROTO_VARINT) {
            if (field.value < NYB_SPM_NORMAL || field.value > NYB_SPM_BYTE)
                return nyb_fail(err, NYB_E_FORMAT, "%s: piece %zu has type %llu", name, id,
                                (unsigned long long) field.value);
            out->type = (nyb_spm_type) field.value;
        }
    }
    if (message.broken)
        return broken(name, "a piece", err);
    if (out->length == 0 || nyb_utf8_valid(out->text, out->length) < out->length)
        return nyb_fail(err, NYB_E_FORMAT, "%s: piece %zu has no text or is not UTF-8", name, id);
    if (!isfinite(out->score))
        return nyb_fail(err, NYB_E_FORMAT, "%s: piece %zu has the score %g", name, id,
                        (double) out->score);
    return NYB_OK;
}

static int64_t id_of(const nyb_proto_field *field)
{
    return (int32_t) (uint32_t) field->value;
}

// Numbers of the fields of TrainerSpec.
enum {
    MODEL_TYPE = 3,
    WHITESPACE_AS_SUFFIX = 24,
    BYTE_FALLBACK = 35,
    UNK_ID = 40,
    BOS_ID,
    EOS_ID,
    PAD_ID,
    UNK_SURFACE = 44,
    UNK_PIECE = 45,
    BOS_PIECE,
    EOS_PIECE,
    PAD_PIECE,
};

static void read_trainer_number(nyb_spm_model *out, const nyb_proto_field *field)
{
    switch (field->number) {
    case MODEL_TYPE:
        out->model_type = field->value;
        break;
    case WHITESPACE_AS_SUFFIX:
        out->whitespace_as_suffix = field->value != 0;
        break;
    case BYTE_FALLBACK:
        out->byte_fallback = field->value != 0;
        break;
    case UNK_ID:
        out->unk_id = id_of(field);
        break;
    case BOS_ID:
        out->bos_id = id_of(field);
        break;
    case EOS_ID:
        out->eos_id = id_of(field);
        break;
    case PAD_ID:
        out->pad_id = id_of(field);
        break;
    default:
        break;
    }
}

static nyb_status read_trainer(nyb_spm_model *out, nyb_proto message, const char *name,
                               nyb_err *err)
{
    nyb_proto_field field;
    while (nyb_proto_next(&message, &field)) {
        const nyb_spm_text text = {field.at, field.length};
        if (field.wire == NYB_PROTO_VARINT)
            read_trainer_number(out, &field);
        if (field.wire != NYB_PROTO_BYTES)
            continue;
        if (field.number >= UNK_SURFACE && field.number <= PAD_PIECE &&
            nyb_utf8_valid(text.at, text.length) < text.length)
            return nyb_fail(err, NYB_E_FORMAT, "%s: the name of a special piece is not UTF-8",
                            name);
        if (field.number == UNK_SURFACE)
            out->unk_surface = text;
        else if (field.number == UNK_PIECE)
            out->unk_piece = text;
        else if (field.number == BOS_PIECE)
            out->bos_piece = text;
        else if (field.number == EOS_PIECE)
            out->eos_piece = text;
        else if (field.number == PAD_PIECE)
            out->pad_piece = text;
    }
    return message.broken ? broken(name, "its trainer_spec", err) : NYB_OK;
}

static nyb_status read_normalizer(nyb_spm_model *out, nyb_proto message, const char *name,
                                  nyb_err *err)
{
    nyb_proto_field field;
    while (nyb_proto_next(&message, &field)) {
        if (field.number == 2 && field.wire == NYB_PROTO_BYTES)
            out->charsmap = (nyb_spm_text){field.at, field.length};
        else if (field.number == 3 && field.wire == NYB_PROTO_VARINT)
            out->spaces.add_dummy_prefix = field.value != 0;
        else if (field.number == 4 && field.wire == NYB_PROTO_VARINT)
            out->spaces.remove_extra = field.value != 0;
        else if (field.number == 5 && field.wire == NYB_PROTO_VARINT)
            out->spaces.escape = field.value != 0;
    }
    return message.broken ? broken(name, "its normalizer_spec", err) : NYB_OK;
}

static nyb_status read_denormalizer(nyb_spm_model *out, nyb_proto message, const char *name,
                                    nyb_err *err)
{
    nyb_proto_field field;
    while (nyb_proto_next(&message, &field))
        out->has_denormalizer |=
            field.number == 2 && field.wire == NYB_PROTO_BYTES && field.length > 0;
    return message.broken ? broken(name, "its denormalizer_spec", err) : NYB_OK;
}

static nyb_spm_text text_of(const char *text)
{
    return (nyb_spm_text){text, strlen(text)};
}

static size_t count_pieces(nyb_proto message)
{
    nyb_proto_field field;
    size_t count = 0;
    while (nyb_proto_next(&message, &field))
        count += field.number == 1 && field.wire == NYB_PROTO_BYTES;
    return count;
}

nyb_status nyb_spm_model_read(nyb_spm_model *out, nyb_arena *arena, const char *at, size_t length,
                              const char *name, nyb_err *err)
{
    nyb_proto message = nyb_proto_of(at, length);
    nyb_proto_field field;
    bool trainer = false, normalizer = false;
    const size_t count = count_pieces(message);
    *out = (nyb_spm_model){
        .pieces = nyb_arena_alloc(arena, count + 1, sizeof(*out->pieces)),
        .model_type = 1,
        .unk_id = 0,
        .bos_id = 1,
        .eos_id = 2,
        .pad_id = -1,
        .unk_piece = text_of("<unk>"),
        .bos_piece = text_of("<s>"),
        .eos_piece = text_of("</s>"),
        .pad_piece = text_of("<pad>"),
        .unk_surface = text_of(" \xe2\x81\x87 "),
        .spaces = {.add_dummy_prefix = true, .remove_extra = true, .escape = true},
    };
    if (!out->pieces)
        return nyb_no_memory(err, "pieces", count, sizeof(*out->pieces));

    nyb_status status = NYB_OK;
    while (status == NYB_OK && nyb_proto_next(&message, &field)) {
        const nyb_proto inner = nyb_proto_of(field.at, field.length);
        if (field.wire != NYB_PROTO_BYTES)
            continue;
        if (field.number == 1) {
            status = read_piece(&out->pieces[out->count], inner, out->count, name, err);
            out->count++;
        } else if (field.number == 2) {
            trainer = true;
            status = read_trainer(out, inner, name, err);
        } else if (field.number == 3) {
            normalizer = true;
            status = read_normalizer(out, inner, name, err);
        } else if (field.number == 5) {
            status = read_denormalizer(out, inner, name, err);
        }
    }
    if (status != NYB_OK)
        return status;
    // A file that breaks off between two fields is a shorter message like any other; these two
    // follow the pieces in every model.
    if (message.broken || out->count == 0 || !trainer || !normalizer)
        return broken(name, "pieces, trainer_spec and normalizer_spec are not all there", err);
    return NYB_OK;
}
