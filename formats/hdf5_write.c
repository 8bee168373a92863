#include <string.h>

#include "core/file.h"
#include "formats/hdf5.h"
#include "formats/hdf5_types.h"

struct nyb_hdf5_writer {
    nyb_arena arena;
    const char *path;
    hid_t file;
    hid_t links; // how groups on the way to a name are made
};

static nyb_status open_into(nyb_hdf5_writer *w, const char *path, nyb_err *err)
{
    nyb_hdf5_quiet();
    w->path = nyb_arena_text(&w->arena, path, strlen(path));
    w->links = H5Pcreate(H5P_LINK_CREATE);
    if (!w->path || w->links < 0)
        return nyb_no_memory(err, path, strlen(path), 1);
    if (H5Pset_create_intermediate_group(w->links, 1) < 0 ||
        H5Pset_char_encoding(w->links, H5T_CSET_UTF8) < 0)
        return nyb_hdf5_fail(err, NYB_E_IO, "%s: cannot be written", path);
    w->file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (w->file < 0)
        return nyb_hdf5_fail(err, NYB_E_IO, "%s: cannot create it", path);
    return NYB_OK;
}

nyb_status nyb_hdf5_create(nyb_hdf5_writer **out, const char *path, nyb_err *err)
{
    *out = NULL;
    nyb_hdf5_writer *const w = nyb_alloc(1, sizeof(*w));
    if (!w)
        return nyb_no_memory(err, path, 1, sizeof(*w));
    w->file = w->links = -1;
    const nyb_status status = open_into(w, path, err);
    if (status == NYB_OK)
        *out = w;
    else
        nyb_hdf5_discard(w);
    return status;
}

void nyb_hdf5_discard(nyb_hdf5_writer *w)
{
    if (!w)
        return;
    if (w->links >= 0)
        (void) H5Pclose(w->links);
    if (w->file >= 0)
        (void) H5Fclose(w->file);
    nyb_arena_clear(&w->arena);
    nyb_free(w);
}

nyb_status nyb_hdf5_put_group(nyb_hdf5_writer *w, const char *path, nyb_err *err)
{
    hid_t group = H5Gopen2(w->file, *path ? path : "/", H5P_DEFAULT);
    if (group < 0)
        group = H5Gcreate2(w->file, path, w->links, H5P_DEFAULT, H5P_DEFAULT);
    if (group < 0)
        return nyb_hdf5_fail(err, NYB_E_IO, "%s: cannot make the group '%s'", w->path, path);
    (void) H5Gclose(group);
    return NYB_OK;
}

// ---- Arrays ---------------------------------------------------------------------------------

static bool set_storage(hid_t properties, const nyb_tensor *tensor, const nyb_hdf5_storage *storage)
{
    hsize_t chunk[NYB_MAX_RANK] = {0};
    bool pieces = storage && tensor->rank > 0;
    // Times in a file would make it another one each time.
    if (H5Pset_obj_track_times(properties, false) < 0)
        return false;
    for (unsigned i = 0; pieces && i < tensor->rank; i++) {
        const size_t most = tensor->shape[i] > 0 ? tensor->shape[i] : 1;
        chunk[i] = storage->chunk[i] < most ? storage->chunk[i] : most;
        pieces = chunk[i] > 0;
    }
    if (!pieces)
        return true;
    return H5Pset_chunk(properties, (int) tensor->rank, chunk) >= 0 &&
           (storage->deflate == 0 || (H5Pset_shuffle(properties) >= 0 &&
                                      H5Pset_deflate(properties, storage->deflate) >= 0)) &&
           (!storage->checksum || H5Pset_fletcher32(properties) >= 0);
}

static hid_t make_space(const nyb_tensor *tensor)
{
    hsize_t shape[NYB_MAX_RANK] = {0};
    for (unsigned i = 0; i < tensor->rank; i++)
        shape[i] = tensor->shape[i];
    return tensor->rank == 0 ? H5Screate(H5S_SCALAR)
                             : H5Screate_simple((int) tensor->rank, shape, NULL);
}

// parts: type, space, properties
static nyb_status write_array(nyb_hdf5_writer *w, const nyb_tensor *tensor,
                              const nyb_hdf5_storage *storage, const hid_t parts[3], nyb_err *err)
{
    if (parts[0] < 0 || parts[1] < 0 || parts[2] < 0 || !set_storage(parts[2], tensor, storage))
        return nyb_hdf5_fail(err, NYB_E_IO, "%s: '%s' cannot be described", w->path, tensor->name);
    const hid_t array =
        H5Dcreate2(w->file, tensor->name, parts[0], parts[1], w->links, parts[2], H5P_DEFAULT);
    if (array < 0)
        return nyb_hdf5_fail(err, NYB_E_IO, "%s: '%s' cannot be made", w->path, tensor->name);
    const bool wrote = tensor->bytes == 0 ||
                       H5Dwrite(array, parts[0], H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor->at) >= 0;
    const nyb_status status =
        wrote ? NYB_OK
              : nyb_hdf5_fail(err, NYB_E_IO, "%s: '%s' cannot be written", w->path, tensor->name);
    (void) H5Dclose(array);
    return status;
}

nyb_status nyb_hdf5_put(nyb_hdf5_writer *w, const nyb_tensor *tensor,
                        const nyb_hdf5_storage *storage, nyb_err *err)
{
    if (H5Oexists_by_name(w->file, tensor->name, H5P_DEFAULT) > 0)
        return nyb_fail(err, NYB_E_EXISTS, "%s: '%s' is there already", w->path, tensor->name);
    const hid_t parts[3] = {nyb_hdf5_type_of(tensor->dtype), make_space(tensor),
                            H5Pcreate(H5P_DATASET_CREATE)};
    nyb_status status = write_array(w, tensor, storage, parts, err);
    nyb_hdf5_close_parts(parts);
    if (status == NYB_OK && tensor->dtype == NYB_BF16) {
        json_t *const word = json_string("bfloat16");
        status = nyb_hdf5_put_attribute(w, tensor->name, "dtype", word, err);
        json_decref(word);
    }
    return status;
}

// ---- Attributes -----------------------------------------------------------------------------

static hid_t text_type(void)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 &&
        (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        (void) H5Tclose(type);
        return -1;
    }
    return type;
}

static bool write_attribute(hid_t object, const char *name, const json_t *value, hid_t type,
                            hid_t space)
{
    const char *const text = json_string_value(value);
    const int64_t integer = json_integer_value(value);
    const double real = json_number_value(value);
    const void *const at = text                     ? (const void *) &text
                           : json_is_integer(value) ? (const void *) &integer
                                                    : (const void *) &real;
    const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    const bool wrote = attribute >= 0 && H5Awrite(attribute, type, at) >= 0;
    if (attribute >= 0)
        (void) H5Aclose(attribute);
    return wrote;
}

nyb_status nyb_hdf5_put_attribute(nyb_hdf5_writer *w, const char *path, const char *name,
                                  const json_t *value, nyb_err *err)
{
    const hid_t type = json_is_string(value)    ? text_type()
                       : json_is_integer(value) ? H5Tcopy(H5T_STD_I64LE)
                                                : H5Tcopy(H5T_IEEE_F64LE);
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t object = H5Oopen(w->file, *path ? path : "/", H5P_DEFAULT);
    const bool wrote =
        type >= 0 && space >= 0 && object >= 0 && write_attribute(object, name, value, type, space);
    const nyb_status status =
        wrote ? NYB_OK
              : nyb_hdf5_fail(err, NYB_E_IO, "%s: the attribute '%s' of '%s' cannot be written",
                              w->path, name, path);
    if (object >= 0)
        (void) H5Oclose(object);
    if (space >= 0)
        (void) H5Sclose(space);
    if (type >= 0)
        (void) H5Tclose(type);
    return status;
}

// ---- The end --------------------------------------------------------------------------------

nyb_status nyb_hdf5_finish(nyb_hdf5_writer *w, nyb_err *err)
{
    const hid_t file = w->file;
    w->file = -1;
    nyb_status status = H5Fclose(file) >= 0
                            ? nyb_file_sync(w->path, err)
                            : nyb_hdf5_fail(err, NYB_E_IO, "%s: cannot be completed", w->path);
    nyb_hdf5_discard(w);
    return status;
}
