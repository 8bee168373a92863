#include "formats/hdf5_types.h"

#include <stdarg.h>
#include <stdio.h>

// Where sign, exponent and mantissa of the 2-byte floats lie.
typedef struct float_fields {
    nyb_dtype dtype;
    size_t sign, exponent, exponent_bits, mantissa, mantissa_bits, bias;
} float_fields;

static const float_fields halves[] = {
    {NYB_F16, 15, 10, 5, 0, 10, 15},
    {NYB_BF16, 15, 7, 8, 0, 7, 127},
};

static hid_t make_half(void)
{
    const float_fields *const f = &halves[0];
    const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type < 0)
        return type;
    if (H5Tset_fields(type, f->sign, f->exponent, f->exponent_bits, f->mantissa, f->mantissa_bits) <
            0 ||
        H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, f->bias) < 0) {
        (void) H5Tclose(type);
        return -1;
    }
    return type;
}

// As h5py stores truth values.
static hid_t make_bool(void)
{
    const int8_t no = 0, yes = 1;
    const hid_t type = H5Tenum_create(H5T_STD_I8LE);
    if (type >= 0 &&
        (H5Tenum_insert(type, "FALSE", &no) < 0 || H5Tenum_insert(type, "TRUE", &yes) < 0)) {
        (void) H5Tclose(type);
        return -1;
    }
    return type;
}

// Types with a name in libhdf5; the names are calls, so there can be no table.
static hid_t named_type(nyb_dtype dtype)
{
    switch (dtype) {
    case NYB_F32:
        return H5T_IEEE_F32LE;
    case NYB_F64:
        return H5T_IEEE_F64LE;
    case NYB_I8:
        return H5T_STD_I8LE;
    case NYB_U8:
        return H5T_STD_U8LE;
    case NYB_I16:
        return H5T_STD_I16LE;
    case NYB_U16:
        return H5T_STD_U16LE;
    case NYB_I32:
        return H5T_STD_I32LE;
    case NYB_U32:
        return H5T_STD_U32LE;
    case NYB_I64:
        return H5T_STD_I64LE;
    case NYB_U64:
        return H5T_STD_U64LE;
    default:
        return -1;
    }
}

hid_t nyb_hdf5_type_of(nyb_dtype dtype)
{
    if (dtype == NYB_F16)
        return make_half();
    if (dtype == NYB_BOOL)
        return make_bool();
    if (dtype == NYB_BF16)
        return H5Tcreate(H5T_OPAQUE, 2);
    const hid_t named = named_type(dtype);
    return named < 0 ? -1 : H5Tcopy(named);
}

static bool same_fields(const float_fields *a, const float_fields *b)
{
    return a->sign == b->sign && a->exponent == b->exponent &&
           a->exponent_bits == b->exponent_bits && a->mantissa == b->mantissa &&
           a->mantissa_bits == b->mantissa_bits && a->bias == b->bias;
}

static bool is_half(hid_t type, nyb_dtype *out)
{
    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        float_fields f = {halves[i].dtype, 0, 0, 0, 0, 0, H5Tget_ebias(type)};
        if (H5Tget_fields(type, &f.sign, &f.exponent, &f.exponent_bits, &f.mantissa,
                          &f.mantissa_bits) >= 0 &&
            same_fields(&f, &halves[i])) {
            *out = f.dtype;
            return true;
        }
    }
    return false;
}

static bool is_bool(hid_t type)
{
    const hid_t known = make_bool();
    const bool same = known >= 0 && H5Tequal(type, known) > 0;
    if (known >= 0)
        (void) H5Tclose(known);
    return same;
}

bool nyb_hdf5_dtype(hid_t type, nyb_dtype *out)
{
    const H5T_class_t kind = H5Tget_class(type);
    const size_t size = H5Tget_size(type);
    if (kind == H5T_FLOAT && size == 2)
        return H5Tget_order(type) == H5T_ORDER_LE && is_half(type, out);
    if (kind == H5T_OPAQUE && size == 2) {
        *out = NYB_BF16; // the attribute has to say so
        return true;
    }
    if (kind == H5T_ENUM && is_bool(type)) {
        *out = NYB_BOOL;
        return true;
    }
    if (kind != H5T_FLOAT && kind != H5T_INTEGER)
        return false;
    for (unsigned i = 0; i < NYB_DTYPE_COUNT; i++) {
        const hid_t named = named_type((nyb_dtype) i);
        if (named >= 0 && H5Tequal(type, named) > 0) {
            *out = (nyb_dtype) i;
            return true;
        }
    }
    // The order of one byte's bytes may be written either way.
    if (kind == H5T_INTEGER && size == 1) {
        *out = H5Tget_sign(type) == H5T_SGN_NONE ? NYB_U8 : NYB_I8;
        return H5Tget_precision(type) == 8;
    }
    return false;
}

const char *nyb_hdf5_type_word(hid_t type)
{
    switch (H5Tget_class(type)) {
    case H5T_STRING:
        return "texts";
    case H5T_VLEN:
        return "values of variable length";
    case H5T_COMPOUND:
        return "compound values";
    case H5T_REFERENCE:
        return "references";
    case H5T_ENUM:
        return "enumerated values";
    case H5T_ARRAY:
        return "arrays in arrays";
    case H5T_OPAQUE:
        return "opaque values";
    case H5T_BITFIELD:
        return "bit fields";
    case H5T_TIME:
        return "times";
    default:
        return H5Tget_order(type) == H5T_ORDER_BE ? "big-endian numbers" : "unusual numbers";
    }
}

void nyb_hdf5_quiet(void)
{
    (void) H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void) H5PLset_loading_state(0);
}

static herr_t keep_first(unsigned n, const H5E_error2_t *error, void *text)
{
    if (n == 0 && error->desc)
        (void) snprintf(text, 200, "%s", error->desc);
    return 0;
}

nyb_status nyb_hdf5_fail(nyb_err *err, nyb_status status, const char *format, ...)
{
    char line[sizeof(((nyb_err *) NULL)->text)], why[200] = "no reason given";
    va_list args;
    va_start(args, format);
    (void) vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    (void) H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, why);
    return nyb_fail(err, status, "%s: %s", line, why);
}

void nyb_hdf5_close_parts(const hid_t parts[3])
{
    if (parts[0] >= 0)
        (void) H5Tclose(parts[0]);
    if (parts[1] >= 0)
        (void) H5Sclose(parts[1]);
    if (parts[2] >= 0)
        (void) H5Pclose(parts[2]);
}
