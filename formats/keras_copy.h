// keras_copy.h - whole folders: copying what lies beside the weights, and replacing an output.
// Seen by formats/keras_save.c alone.
#ifndef NYB_FORMATS_KERAS_COPY_H_
#define NYB_FORMATS_KERAS_COPY_H_

#include "core/status.h"

// Makes the folder `to` and copies all plain files of `from` and of the folders in it, without the
// model's weights, their map and config.json.
NYB_NODISCARD nyb_status nyb_keras_copy_folder(const char *from, const char *to, nyb_err *err);

// Gives a complete output its name. A file that is there is replaced; a folder only when it is a
// Keras checkpoint.
NYB_NODISCARD nyb_status nyb_keras_put_in_place(const char *partial, const char *path,
                                                nyb_err *err);

// Removes a file or a folder with all that is in it. For what nybble made itself.
void nyb_keras_remove(const char *path);

#endif // NYB_FORMATS_KERAS_COPY_H_
