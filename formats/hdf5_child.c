#include "formats/hdf5_child.h"

#include <jansson.h>
#include <string.h>

#include "core/arena.h"
#include "formats/hdf5_mapped.h"
#include "formats/hdf5_types.h"

enum { DEPTH = 64, TEXT_LIMIT = 16 << 20 };

typedef struct listing {
    const nyb_hdf5_listing *to;
    nyb_arena arena;
    json_t *items;
    size_t item_limit; // each takes at least a link in the file
    unsigned depth;
    nyb_err *err;
} listing;

typedef nyb_status status_fn(listing *l, hid_t object, const char *path);

static const char *shown(const char *path)
{
    return *path ? path : "/";
}

// ---- Attributes ---------------------------------------------------------------------------

static json_t *read_text(hid_t attribute, hid_t type)
{
    const size_t size = H5Tget_size(type);
    json_t *made = NULL;
    if (H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Aread(attribute, type, (void *) &text) >= 0 && text && strlen(text) <= TEXT_LIMIT)
            made = json_string(text);
        return made;
    }
    char *const text = size < TEXT_LIMIT ? nyb_alloc(size + 1, 1) : NULL;
    if (text && H5Aread(attribute, type, text) >= 0) {
        size_t length = strlen(text);
        while (H5Tget_strpad(type) == H5T_STR_SPACEPAD && length > 0 && text[length - 1] == ' ')
            text[--length] = '\0';
        made = json_string(text);
    }
    nyb_free(text);
    return made;
}

// NULL for what is neither one text nor one number.
static json_t *read_attribute(hid_t attribute, hid_t type)
{
    long long integer = 0;
    double real = 0.0;
    switch (H5Tget_class(type)) {
    case H5T_STRING:
        return read_text(attribute, type);
    case H5T_INTEGER:
        return H5Aread(attribute, H5T_NATIVE_LLONG, &integer) >= 0 ? json_integer(integer) : NULL;
    case H5T_FLOAT:
        return H5Aread(attribute, H5T_NATIVE_DOUBLE, &real) >= 0 ? json_real(real) : NULL;
    default:
        return NULL;
    }
}

static herr_t add_attribute(hid_t object, const char *name, const H5A_info_t *info, void *to)
{
    (void) info;
    const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0)
        return -1;
    const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    if (type >= 0 && space >= 0 && H5Sget_simple_extent_npoints(space) == 1) {
        json_t *const value = read_attribute(attribute, type);
        if (value)
            (void) json_object_set_new(to, name, value);
    }
    if (space >= 0)
        (void) H5Sclose(space);
    if (type >= 0)
        (void) H5Tclose(type);
    (void) H5Aclose(attribute);
    return 0;
}

static nyb_status add_attributes(listing *l, hid_t object, const char *path, json_t *item)
{
    json_t *const attributes = json_object();
    json_object_set_new(item, "attributes", attributes);
    hsize_t at = 0;
    if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, &at, add_attribute, attributes) < 0)
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: '%s': its attributes cannot be read",
                             l->to->path, shown(path));
    return NYB_OK;
}

static nyb_status add_item(listing *l, json_t *item, const char *path)
{
    json_t *const text = json_string(path);
    if (!item || !text)
        return nyb_fail(l->err, NYB_E_FORMAT, "%s: a name in '%.100s' is not UTF-8", l->to->path,
                        shown(path));
    json_object_set_new(item, "path", text);
    if (json_array_append(l->items, item) != 0)
        return nyb_no_memory(l->err, "the file's items", json_array_size(l->items), 1);
    if (json_array_size(l->items) > l->item_limit)
        return nyb_fail(l->err, NYB_E_FORMAT, "%s: more than %zu groups and arrays in %zu bytes",
                        l->to->path, l->item_limit, l->to->map->bytes);
    return NYB_OK;
}

// ---- Arrays -------------------------------------------------------------------------------

static nyb_status check_filters(listing *l, hid_t properties, const char *path)
{
    const int count = H5Pget_nfilters(properties);
    if (count < 0)
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: '%s': its filters cannot be read",
                             l->to->path, path);
    for (int i = 0; i < count; i++) {
        unsigned flags = 0, values[16], config = 0;
        size_t value_count = 16;
        char name[64] = "";
        const H5Z_filter_t filter = H5Pget_filter2(properties, (unsigned) i, &flags, &value_count,
                                                   values, sizeof(name), name, &config);
        name[sizeof(name) - 1] = '\0';
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE &&
            filter != H5Z_FILTER_FLETCHER32)
            return nyb_fail(l->err, NYB_E_UNSUPPORTED,
                            "%s: '%s' is stored through filter %d (%s); deflate, shuffle and "
                            "fletcher32 are read",
                            l->to->path, path, (int) filter, *name ? name : "unnamed");
    }
    return NYB_OK;
}

// What the elements of a piece take; they are unpacked in one go.
static nyb_status check_chunk(listing *l, hid_t properties, const char *path, unsigned rank,
                              size_t most)
{
    hsize_t chunk[NYB_MAX_RANK] = {0};
    size_t bytes = 1;
    bool fits = H5Pget_chunk(properties, NYB_MAX_RANK, chunk) == (int) rank;
    for (unsigned i = 0; i < rank && fits; i++)
        fits = nyb_mul_size(bytes, (size_t) chunk[i], &bytes);
    if (!fits || bytes > most)
        return nyb_fail(l->err, NYB_E_FORMAT,
                        "%s: '%s': its pieces are larger than the file can hold", l->to->path,
                        path);
    return NYB_OK;
}

static nyb_status check_layout(listing *l, hid_t properties, const char *path, unsigned rank,
                               size_t most)
{
    switch (H5Pget_layout(properties)) {
    case H5D_COMPACT:
        return NYB_OK;
    case H5D_CONTIGUOUS:
        if (H5Pget_external_count(properties) == 0)
            return NYB_OK;
        return nyb_fail(l->err, NYB_E_UNSUPPORTED, "%s: the values of '%s' lie in another file",
                        l->to->path, path);
    case H5D_CHUNKED:
        return check_chunk(l, properties, path, rank, most);
    case H5D_VIRTUAL:
        return nyb_fail(l->err, NYB_E_UNSUPPORTED, "%s: '%s' is a view of other arrays",
                        l->to->path, path);
    default:
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: '%s' has no layout", l->to->path, path);
    }
}

static nyb_status read_shape(listing *l, hid_t space, nyb_tensor *tensor)
{
    hsize_t sizes[NYB_MAX_RANK] = {0};
    const H5S_class_t kind = H5Sget_simple_extent_type(space);
    const int rank = kind == H5S_SCALAR ? 0 : H5Sget_simple_extent_ndims(space);
    if ((kind != H5S_SCALAR && kind != H5S_SIMPLE) || rank < 0 || rank > NYB_MAX_RANK)
        return nyb_fail(l->err, NYB_E_UNSUPPORTED, "%s: '%s' has %d axes, 0 to %d are read",
                        l->to->path, tensor->name, kind == H5S_NULL ? -1 : rank, NYB_MAX_RANK);
    if (rank > 0 && H5Sget_simple_extent_dims(space, sizes, NULL) != rank)
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: '%s' has no shape", l->to->path,
                             tensor->name);
    tensor->rank = (unsigned) rank;
    tensor->bytes = nyb_dtype_bytes(tensor->dtype);
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = (size_t) sizes[i];
        if (!nyb_mul_size(tensor->bytes, tensor->shape[i], &tensor->bytes))
            return nyb_fail(l->err, NYB_E_FORMAT, "%s: the size of '%s' overflows", l->to->path,
                            tensor->name);
    }
    return NYB_OK;
}

static nyb_status read_type(listing *l, hid_t type, nyb_tensor *tensor, json_t *item)
{
    const char *const said =
        json_string_value(json_object_get(json_object_get(item, "attributes"), "dtype"));
    const bool named = said && strcmp(said, "bfloat16") == 0;
    if (!nyb_hdf5_dtype(type, &tensor->dtype) || (H5Tget_class(type) == H5T_OPAQUE && !named))
        return nyb_fail(l->err, NYB_E_UNSUPPORTED, "%s: '%s' holds %s; plain numbers are read",
                        l->to->path, tensor->name, nyb_hdf5_type_word(type));
    if (named && nyb_dtype_bytes(tensor->dtype) == 2)
        tensor->dtype = NYB_BF16;
    return NYB_OK;
}

static json_t *shape_of(const nyb_tensor *tensor)
{
    json_t *const shape = json_array();
    for (unsigned i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t) tensor->shape[i]));
    return shape;
}

// Where the values lie when they lie in one piece as they are.
static nyb_status describe_place(listing *l, hid_t array, hid_t properties,
                                 const nyb_tensor *tensor, json_t *item)
{
    const size_t most = l->to->map->bytes;
    const bool plain = H5Pget_layout(properties) == H5D_CONTIGUOUS;
    const haddr_t offset = plain ? H5Dget_offset(array) : HADDR_UNDEF;
    const size_t limit = offset == HADDR_UNDEF ? most * NYB_HDF5_EXPANSION : most;
    if (tensor->bytes > limit)
        return nyb_fail(l->err, NYB_E_FORMAT,
                        "%s: '%s' claims %zu bytes, which a file of %zu cannot hold", l->to->path,
                        tensor->name, tensor->bytes, most);
    if (offset != HADDR_UNDEF)
        json_object_set_new(item, "offset", json_integer((json_int_t) offset));
    json_object_set_new(item, "dtype", json_integer(tensor->dtype));
    json_object_set_new(item, "shape", shape_of(tensor));
    return NYB_OK;
}

// Checks what is known of an array, and puts it into the item.
static nyb_status describe_array(listing *l, hid_t array, const hid_t parts[3], json_t *item,
                                 const char *path)
{
    const hid_t type = parts[0], space = parts[1], properties = parts[2];
    nyb_tensor tensor = {.name = path};
    if (type < 0 || space < 0 || properties < 0)
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: '%s' cannot be read", l->to->path, path);
    nyb_status status = read_type(l, type, &tensor, item);
    if (status == NYB_OK)
        status = read_shape(l, space, &tensor);
    if (status == NYB_OK)
        status = check_filters(l, properties, path);
    if (status == NYB_OK)
        status =
            check_layout(l, properties, path, tensor.rank, l->to->map->bytes * NYB_HDF5_EXPANSION);
    if (status == NYB_OK)
        status = describe_place(l, array, properties, &tensor, item);
    return status;
}

static nyb_status list_array(listing *l, hid_t array, const char *path)
{
    const hid_t parts[3] = {H5Dget_type(array), H5Dget_space(array), H5Dget_create_plist(array)};
    json_t *const item = json_object();
    nyb_status status = add_item(l, item, path);
    if (status == NYB_OK)
        status = add_attributes(l, array, path, item);
    if (status == NYB_OK)
        status = describe_array(l, array, parts, item, path);
    json_decref(item);
    nyb_hdf5_close_parts(parts);
    return status;
}

// ---- Groups -------------------------------------------------------------------------------

static status_fn list_group;

typedef struct member {
    listing *l;
    const char *path; // of the group
    nyb_status status;
} member;

static nyb_status list_object(listing *l, hid_t group, const char *name, const char *path)
{
    const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    if (object < 0)
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: '%s' cannot be opened", l->to->path, path);
    const H5I_type_t kind = H5Iget_type(object);
    const nyb_status status =
        kind == H5I_GROUP ? list_group(l, object, path)
        : kind == H5I_DATASET
            ? list_array(l, object, path)
            : nyb_fail(l->err, NYB_E_UNSUPPORTED, "%s: '%s' is neither a group nor an array",
                       l->to->path, path);
    (void) H5Oclose(object);
    return status;
}

static herr_t visit(hid_t group, const char *name, const H5L_info_t *info, void *to)
{
    member *const m = to;
    listing *const l = m->l;
    const char *const path = *m->path ? nyb_arena_format(&l->arena, "%s/%s", m->path, name)
                                      : nyb_arena_text(&l->arena, name, strlen(name));
    if (!path)
        m->status = nyb_no_memory(l->err, name, 1, 1);
    else if (info->type != H5L_TYPE_HARD)
        m->status = nyb_fail(l->err, NYB_E_UNSUPPORTED,
                             "%s: '%s' is %s link; files with links to elsewhere are not read",
                             l->to->path, path,
                             info->type == H5L_TYPE_EXTERNAL ? "an external"
                             : info->type == H5L_TYPE_SOFT   ? "a soft"
                                                             : "an unknown kind of");
    else
        m->status = list_object(l, group, name, path);
    return m->status == NYB_OK ? 0 : 1; // 1 ends the walk
}

static nyb_status list_group(listing *l, hid_t group, const char *path)
{
    json_t *const item = json_object();
    nyb_status status = add_item(l, item, path);
    if (status == NYB_OK)
        status = add_attributes(l, group, path, item);
    json_decref(item);
    if (status != NYB_OK)
        return status;
    if (++l->depth > DEPTH)
        return nyb_fail(l->err, NYB_E_FORMAT, "%s: groups are nested deeper than %d", l->to->path,
                        DEPTH);
    member m = {.l = l, .path = path};
    hsize_t at = 0;
    if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &at, visit, &m) < 0)
        return nyb_hdf5_fail(l->err, NYB_E_FORMAT, "%s: the members of '%s' cannot be listed",
                             l->to->path, shown(path));
    l->depth--;
    return m.status;
}

// ---- The file -----------------------------------------------------------------------------

static nyb_status open_file(hid_t *out, const char *path, const nyb_map *map, nyb_err *err)
{
    const nyb_hdf5_image image = {.at = map->at, .bytes = map->bytes};
    nyb_hdf5_quiet();
    *out = nyb_hdf5_open_image(path, &image);
    return *out < 0 ? nyb_hdf5_fail(err, NYB_E_FORMAT, "%s: not a whole HDF5 file", path) : NYB_OK;
}

static nyb_status hand_over(const listing *l)
{
    const nyb_hdf5_listing *const to = l->to;
    *to->used = json_dumpb(l->items, to->text, to->room, JSON_COMPACT);
    if (*to->used == 0 || *to->used > to->room)
        return nyb_fail(l->err, NYB_E_FORMAT, "%s: its names and attributes take %zu bytes",
                        to->path, *to->used);
    return NYB_OK;
}

nyb_status nyb_hdf5_list(void *arg, nyb_err *err)
{
    hid_t file = -1;
    listing l = {.to = arg, .err = err, .items = json_array()};
    l.item_limit = l.to->map->bytes / 40 + 16;
    nyb_status status = open_file(&file, l.to->path, l.to->map, err);
    if (status != NYB_OK)
        return status;
    const hid_t root = H5Oopen(file, "/", H5P_DEFAULT);
    status = root < 0 ? nyb_hdf5_fail(err, NYB_E_FORMAT, "%s: it has no root", l.to->path)
                      : list_group(&l, root, "");
    return status == NYB_OK ? hand_over(&l) : status;
}

nyb_status nyb_hdf5_decode(void *arg, nyb_err *err)
{
    const nyb_hdf5_decoding *const d = arg;
    hid_t file = -1;
    const nyb_status status = open_file(&file, d->path, d->map, err);
    if (status != NYB_OK)
        return status;
    const hid_t array = H5Dopen2(file, d->tensor->name, H5P_DEFAULT);
    const hid_t type = array < 0 ? -1 : H5Dget_type(array);
    const hid_t space = array < 0 ? -1 : H5Dget_space(array);
    const hssize_t count = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    // The listing said how much room it takes.
    if (type < 0 || count < 0 || (size_t) count * H5Tget_size(type) != d->tensor->bytes ||
        H5Dread(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, d->at) < 0)
        return nyb_hdf5_fail(err, NYB_E_FORMAT, "%s: the values of '%s' cannot be read", d->path,
                             d->tensor->name);
    return NYB_OK;
}
