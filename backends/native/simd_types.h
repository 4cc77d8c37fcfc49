/* Everything for one instruction set; the includer defines ISA, TARGET, WIDTH, REGISTERS and CHAINS (see simd_step.h). */

#define VALUES(FROM, BITS)                                                                                                       \
    TARGET static void NAME4(values, FROM, BITS, ISA)(                                                                           \
        int64_t n_post, const Arrival *arrival, const int##FROM##_t *values, int##BITS##_t *current)                             \
    {                                                                                                                            \
        for (int64_t j = 0; j < n_post; j++) {                                                                                   \
            const int32_t *sources;                                                                                              \
            const int32_t *weights;                                                                                              \
            const int64_t taps = fan_in_32_any(arrival, j, &sources, &weights);                                                  \
            int##BITS##_t sum[LANES];                                                                                            \
            memcpy(sum, current + j * LANES, sizeof sum);                                                                        \
            for (int64_t k = 0; k < taps; k++) {                                                                                 \
                const int##FROM##_t *from = values + (int64_t)sources[k] * LANES;                                                \
                if (k + AHEAD < taps)                                                                                            \
                    for (int i = 0; i < LANES; i += 64 * 8 / FROM)                                                               \
                        __builtin_prefetch(values + (int64_t)sources[k + AHEAD] * LANES + i);                                    \
                const int##BITS##_t weight = weights[k];                                                                         \
                for (int i = 0; i < LANES; i++) sum[i] += weight * from[i];                                                      \
            }                                                                                                                    \
            memcpy(current + j * LANES, sum, sizeof sum);                                                                        \
        }                                                                                                                        \
    }
VALUES(16, 32)
VALUES(32, 32)
VALUES(64, 64)
#undef VALUES

#define SPREAD(BITS)                                                                                                       \
    TARGET static void NAME(spread, BITS, ISA)(int64_t n, const int##BITS##_t *numbers, int##BITS##_t *lanes)               \
    {                                                                                                                      \
        for (int64_t j = 0; j < n; j++)                                                                                    \
            for (int i = 0; i < LANES; i++) lanes[j * LANES + i] = numbers[j];                                             \
    }
SPREAD(32)
SPREAD(64)
#undef SPREAD

#define ENTER(BITS)                                                                                                              \
    TARGET static void NAME(enter, BITS, ISA)(                                                                                   \
        int64_t n, int64_t images, int32_t times, const int64_t *from, int##BITS##_t *values, int32_t *positive,                 \
        int32_t *negative)                                                                                                       \
    {                                                                                                                            \
        for (int64_t block = 0; block < n; block += LINE) { /* neurons whose values of an image share a cache line */            \
            const int64_t end = block + LINE < n ? block + LINE : n;                                                             \
            memset(values + block * LANES, 0, sizeof *values * (end - block) * LANES);                                           \
            for (int64_t i = 0; i < images; i++)                                                                                 \
                for (int64_t j = block; j < end; j++) values[j * LANES + i] = (int##BITS##_t)from[i * n + j];                    \
            for (int64_t k = block * LANES; k < end * LANES; k++) positive[k] = values[k] > 0 ? times : 0;                       \
            if (!negative) continue;                                                                                             \
            for (int64_t k = block * LANES; k < end * LANES; k++) negative[k] = values[k] < 0 ? times : 0;                       \
        }                                                                                                                        \
    }
ENTER(16)
ENTER(32)
#undef ENTER

TARGET static void NAME2(decode, ISA)(
    int64_t n, const uint64_t *words, int64_t slots, const int64_t *payloads, int64_t *values)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t slot = 0; slot < slots; slot++) {
            const uint64_t word = words[STEPS * j + slot];
            if (!word) continue;
            for (int i = 0; i < LANES; i++) values[j * LANES + i] += payloads[slot] & -(int64_t)(word >> i & 1);
        }
}

TARGET static void NAME2(encode, ISA)(
    int64_t n, int64_t slots, uint64_t lanes, const int64_t *primary, const int64_t *compensation, int64_t *membranes,
    uint64_t *primary_words, uint64_t *compensation_words, int32_t *counts)
{
    for (int64_t j = 0; j < n; j++) {
        int64_t *v = membranes + j * LANES;
        int64_t stage[LANES] = {0}; /* spikes that have gone: none, the primary, both */
        for (int64_t slot = 0; slot < slots; slot++) {
            int8_t first[LANES], second[LANES];
            for (int i = 0; i < LANES; i++) {
                const int64_t one = -(int64_t)((stage[i] == 0) & (v[i] >= primary[slot]));
                const int64_t rest = v[i] - (primary[slot] & one);
                const int64_t two = -(int64_t)((stage[i] - one == 1) & (rest >= compensation[slot]));
                v[i] = rest - (compensation[slot] & two);
                stage[i] -= one + two;
                first[i] = (int8_t)one;
                second[i] = (int8_t)two;
            }
            const int64_t at = (slot / STEPS * n + j) * STEPS + slot % STEPS;
            primary_words[at] = NAME(pack, bytes, ISA)(first) & lanes;
            compensation_words[at] = NAME(pack, bytes, ISA)(second) & lanes;
        }
        for (int i = 0; i < LANES; i++) counts[j * LANES + i] = (int32_t)stage[i];
    }
}

TARGET static void NAME2(classes, ISA)(int64_t n, const int64_t *membranes, int64_t *classes)
{
    int64_t largest[LANES];
    memcpy(largest, membranes, sizeof largest);
    for (int i = 0; i < LANES; i++) classes[i] = 0;
    for (int64_t j = 1; j < n; j++)
        for (int i = 0; i < LANES; i++) {
            const int64_t v = membranes[j * LANES + i];
            classes[i] = v > largest[i] ? j : classes[i];
            largest[i] = v > largest[i] ? v : largest[i];
        }
}

TARGET static void NAME2(sum_counts, ISA)(int64_t n, int64_t sets, const int32_t *factors, const int32_t *counts, int64_t *sums)
{
    for (int64_t set = 0; set < sets; set++) {
        int64_t sum[LANES] = {0};
        for (int64_t j = 0; j < n; j++)
            for (int i = 0; i < LANES; i++) sum[i] += (int64_t)factors[set * n + j] * counts[j * LANES + i];
        for (int i = 0; i < LANES; i++) sums[set * LANES + i] += sum[i];
    }
}

TARGET static void NAME2(sum_images, ISA)(int64_t n, int64_t images, const int32_t *counts, int64_t *sums)
{
    for (int64_t j = 0; j < n; j++) {
        int64_t sum = 0;
        if (images == LANES)
            for (int i = 0; i < LANES; i++) sum += counts[j * LANES + i];
        else
            for (int64_t i = 0; i < images; i++) sum += counts[j * LANES + i];
        sums[j] = sum;
    }
}

TARGET static void NAME2(sum_steps, ISA)(
    int64_t tiles, int64_t n, int64_t sets, const int32_t *factors, const uint64_t *words, int64_t *sums)
{
    for (int64_t tile = 0; tile < tiles; tile++)
        for (int64_t set = 0; set < sets; set++) {
            int64_t sum[STEPS] = {0};
            for (int64_t j = 0; j < n; j++)
                for (int step = 0; step < STEPS; step++)
                    sum[step] += (int64_t)factors[set * n + j] * __builtin_popcountll(words[(tile * n + j) * STEPS + step]);
            for (int step = 0; step < STEPS; step++) sums[(set * tiles + tile) * STEPS + step] += sum[step];
        }
}

TARGET static void NAME2(sum_spikes, ISA)(int64_t n, const int64_t *factors, const uint64_t *words, int64_t *sums)
{
    for (int64_t j = 0; j < n; j++)
        for (int step = 0; step < STEPS; step++) {
            const uint64_t word = words[STEPS * j + step];
            if (!word) continue;
            for (int i = 0; i < LANES; i++) sums[step * LANES + i] += factors[j] & -(int64_t)(word >> i & 1);
        }
}

#define CURRENT int16_t
#define CURRENT_BITS 16
#define MEMBRANE int32_t
#define MEMBRANE_BITS 32
#include "simd_step.h"
#undef MEMBRANE
#undef MEMBRANE_BITS
#define MEMBRANE int64_t
#define MEMBRANE_BITS 64
#include "simd_step.h"
#undef CURRENT
#undef CURRENT_BITS
#undef MEMBRANE
#undef MEMBRANE_BITS
#define CURRENT int32_t
#define CURRENT_BITS 32
#define MEMBRANE int32_t
#define MEMBRANE_BITS 32
#include "simd_step.h"
#undef MEMBRANE
#undef MEMBRANE_BITS
#define MEMBRANE int64_t
#define MEMBRANE_BITS 64
#include "simd_step.h"
#undef CURRENT
#undef CURRENT_BITS
#define CURRENT int64_t
#define CURRENT_BITS 64
#include "simd_step.h"
#undef CURRENT
#undef CURRENT_BITS
#undef MEMBRANE
#undef MEMBRANE_BITS

static void (*const NAME2(population_table, ISA)[3][2])(const Population *, const Arrival *, int64_t) = {
    {NAME4(population, 16, 32, ISA), NAME4(population, 16, 64, ISA)},
    {NAME4(population, 32, 32, ISA), NAME4(population, 32, 64, ISA)},
    {NAME4(population, 64, 64, ISA), NAME4(population, 64, 64, ISA)},
};
#undef ISA
#undef TARGET
#undef WIDTH
#undef REGISTERS
#undef CHAINS
