// activation.h - activation functions by the names that transformers gives them.
#ifndef NYB_MODEL_ACTIVATION_H_
#define NYB_MODEL_ACTIVATION_H_

#include <stdbool.h>
#include <stddef.h>

typedef struct nyb_activation {
    const char *name;
    void (*apply)(float *x, size_t n);
    bool silu; // a gate with it has a loop of its own
} nyb_activation;

// The names that are known, NULL behind the last.
const char *nyb_activation_name_at(size_t index);

// False for a name that is not known.
bool nyb_activation_find(nyb_activation *out, const char *name);

#endif // NYB_MODEL_ACTIVATION_H_
