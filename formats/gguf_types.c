#include "formats/gguf_types.h"

#include "formats/gguf.h"

static const struct {
    uint32_t number;
    int dtype; // -1: not read
    const char *name;
} types[] = {
    {0, NYB_F32, "F32"},        {1, NYB_F16, "F16"},      {2, NYB_Q4_0, "Q4_0"},
    {3, NYB_Q4_1, "Q4_1"},      {6, NYB_Q5_0, "Q5_0"},    {7, NYB_Q5_1, "Q5_1"},
    {8, NYB_Q8_0, "Q8_0"},      {9, -1, "Q8_1"},          {10, NYB_Q2_K, "Q2_K"},
    {11, NYB_Q3_K, "Q3_K"},     {12, NYB_Q4_K, "Q4_K"},   {13, NYB_Q5_K, "Q5_K"},
    {14, NYB_Q6_K, "Q6_K"},     {15, -1, "Q8_K"},         {16, -1, "IQ2_XXS"},
    {17, -1, "IQ2_XS"},         {18, -1, "IQ3_XXS"},      {19, -1, "IQ1_S"},
    {20, NYB_IQ4_NL, "IQ4_NL"}, {21, -1, "IQ3_S"},        {22, -1, "IQ2_S"},
    {23, -1, "IQ4_XS"},         {24, NYB_I8, "I8"},       {25, NYB_I16, "I16"},
    {26, NYB_I32, "I32"},       {27, NYB_I64, "I64"},     {28, NYB_F64, "F64"},
    {29, -1, "IQ1_M"},          {30, NYB_BF16, "BF16"},   {34, -1, "TQ1_0"},
    {35, -1, "TQ2_0"},          {39, NYB_MXFP4, "MXFP4"}, {40, -1, "NVFP4"},
    {41, -1, "Q1_0"},           {42, -1, "Q2_0"},
};

enum { TYPES = sizeof(types) / sizeof(types[0]) };

bool nyb_gguf_type_at(size_t index, nyb_gguf_type_row *out)
{
    if (index >= TYPES)
        return false;
    *out = (nyb_gguf_type_row){.name = types[index].name, .dtype = types[index].dtype};
    return true;
}

int nyb_gguf_dtype_of(uint32_t type, const char **name)
{
    *name = NULL;
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].number == type) {
            *name = types[i].name;
            return types[i].dtype;
        }
    }
    return -1;
}

int nyb_gguf_type_of(nyb_dtype dtype)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].dtype == (int) dtype)
            return (int) types[i].number;
    }
    return -1;
}
