// cpu.h - which instructions this CPU has, as far as kernels care.
#ifndef NYB_CORE_CPU_H_
#define NYB_CORE_CPU_H_

enum nyb_cpu_feature {
    NYB_CPU_AVX2 = 1u << 0,       // with FMA and F16C
    NYB_CPU_AVX512 = 1u << 1,     // F, BW, DQ, VL
    NYB_CPU_AVX512VNNI = 1u << 2, //
    NYB_CPU_AVX512BF16 = 1u << 3, //
};

// The features of this CPU, capped by the environment variable NYB_CPU, which names the
// highest level allowed: portable, avx2, avx512, avx512vnni, avx512bf16.
unsigned nyb_cpu(void);

// The features without the cap.
unsigned nyb_cpu_detected(void);

// The highest level in `features`, spelled as NYB_CPU takes it.
const char *nyb_cpu_level(unsigned features);

// The features as words separated by spaces, in a static buffer for each combination.
const char *nyb_cpu_words(unsigned features);

#endif // NYB_CORE_CPU_H_
