/* 64 images side by side: the compiled kernel of the native backend.
 *
 * What a population fires in 8 steps lies as an array (neuron, 8) of 64-bit words, one bit an image: 64 bytes a neuron, one cache
 * line. A synapse adds its weight to the images whose bits are set, for 8 steps at once, into accumulators that stay in registers;
 * their integer type is the narrowest that the graph's bounds prove wide enough. Callers see to it that no sum can overflow.
 *
 * Plain C with GCC's vector extensions (also clang): 16-byte vectors anywhere, and on x86-64 versions for AVX2 and AVX-512 that
 * are chosen when the library is loaded. No state, no allocation, no threads: every function may run in many threads at once.
 */

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif

#define VERSION 3
#define LANES 64
#define STEPS 8
#define LINE 8 /* int64 in a cache line */
#define AHEAD 10 /* synapses whose sources are fetched into the cache early */
#define DECAY_BITS 12 /* a decay of 4096 keeps nothing */
enum { IF, SIGNED_IF, READOUT, LIF };

/* One projection that arrives at a population, and what its sources fired. */
typedef struct {
    const int64_t *pointers;  /* (n_post + 1,), of a convolution (channels out + 1,): where a neuron's or channel's weights begin */
    const int32_t *sources;   /* of each weight: presynaptic neuron, of a convolution the first neuron of its input channel */
    const int32_t *offsets;   /* of a convolution, (weights, 2): where y and x of the source lie from stride * y, stride * x; or NULL */
    const void *weights;      /* of type CURRENT */
    int64_t geometry[6];      /* input y, x, stride y, x, output y, x */
    int32_t *room_sources;    /* of a convolution: room for the weights of one neuron */
    void *room_weights;
    const uint64_t *positive; /* (tiles, n_pre, 8) */
    const uint64_t *negative; /* likewise, or NULL if none fired -1 */
    int64_t n_pre;
} Arrival;

/* One projection that leaves a population, for the scatter. */
typedef struct {
    const int64_t *pointers;  /* (n_pre + 1,), of a convolution (channels in * kernel y * kernel x + 1,) */
    const uint32_t *targets;  /* of each weight: postsynaptic neuron, of a convolution the first neuron of its output channel */
    const int32_t *weights;
    int64_t geometry[12];     /* input y, x, kernel y, x, stride y, x, padding y, x, dilation y, x, output y, x; zeros: no convolution */
    int64_t n_pre, n_post;
    int32_t *room_targets;    /* of a convolution: room for the weights of one neuron */
    int32_t *room_weights;
} Departure;

/* One population; a tile is 8 steps, the last may have fewer. */
typedef struct {
    int64_t kind, zero_reset, neurons, steps;
    int64_t tile;
    int64_t fresh;             /* whether the counts hold nothing yet */
    uint64_t lanes;            /* bits of the images that are there */
    void *membranes;           /* (neurons, 64) of type MEMBRANE, as the four below */
    const void *constant;      /* added in each step; or NULL */
    const void *threshold;     /* (neurons,) */
    const void *threshold_neg; /* (neurons,) */
    const void *scattered;     /* (8, neurons, 64) of type CURRENT: what has arrived already, for a single tile; or NULL */
    int32_t *net;              /* (neurons, 64) spikes less negative spikes so far, of kind signed_if */
    void *flow;                /* (neurons, 64) currents of kind lif; they and its membranes have decayed already for the next step */
    const void *bias;          /* (neurons,) of kind lif, whose constant joins the current; or NULL */
    const void *decay_current; /* (neurons,) of kind lif */
    const void *decay_voltage;
    uint64_t *positive;        /* (tiles, neurons, 8), filled */
    uint64_t *negative;
    int32_t *positive_counts;  /* (neurons, 64), added to, or set where fresh */
    int32_t *negative_counts;
    int64_t *readout;          /* (steps, neurons, 64), filled, of kind readout */
} Population;

#define JOIN(a, b, c) a##b##c
#define NAME_OF(a, b, c) JOIN(a, b, c)
#define PASTE2(a, b) a##_##b
#define NAME2(a, b) PASTE2(a, b)
#define PASTE(a, b, c) a##_##b##_##c
#define NAME(a, b, c) PASTE(a, b, c)
#define PASTE4(a, b, c, d) a##_##b##_##c##_##d
#define NAME4(a, b, c, d) PASTE4(a, b, c, d)

/* The weights that arrive at neuron j: their number, and where they and their sources lie. */
#define FAN_IN(BITS)                                                                                                             \
    static inline int64_t fan_in_##BITS##_any(const Arrival *a, int64_t j, const int32_t **sources, const int##BITS##_t **weights) \
    {                                                                                                                            \
        const int##BITS##_t *all = a->weights;                                                                                   \
        if (!a->offsets) {                                                                                                       \
            *sources = a->sources + a->pointers[j];                                                                              \
            *weights = all + a->pointers[j];                                                                                     \
            return a->pointers[j + 1] - a->pointers[j];                                                                          \
        }                                                                                                                        \
        const int64_t in_y = a->geometry[0], in_x = a->geometry[1], out_y = a->geometry[4], out_x = a->geometry[5];              \
        const int64_t channel = j / (out_y * out_x), y = j / out_x % out_y * a->geometry[2], x = j % out_x * a->geometry[3];     \
        int##BITS##_t *room = a->room_weights;                                                                                   \
        int64_t taps = 0;                                                                                                        \
        for (int64_t k = a->pointers[channel]; k < a->pointers[channel + 1]; k++) {                                              \
            const int64_t from_y = y + a->offsets[2 * k], from_x = x + a->offsets[2 * k + 1];                                    \
            if (from_y < 0 || from_y >= in_y || from_x < 0 || from_x >= in_x) continue;                                          \
            a->room_sources[taps] = (int32_t)(a->sources[k] + from_y * in_x + from_x);                                           \
            room[taps++] = all[k];                                                                                               \
        }                                                                                                                        \
        *sources = a->room_sources;                                                                                              \
        *weights = room;                                                                                                         \
        return taps;                                                                                                             \
    }
FAN_IN(16)
FAN_IN(32)
FAN_IN(64)

/* The lowest bit of each of 64 bytes, as one word; the bytes are 0 or -1. */
static inline uint64_t pack_bytes_plain(const int8_t *bytes)
{
    uint64_t packed = 0;
    for (int i = 0; i < LANES; i++) packed |= (uint64_t)(bytes[i] & 1) << i;
    return packed;
}

/* Weights that leave neuron j: their number, and where they and their targets lie. */
static inline int64_t fan_out(const Departure *d, int64_t j, const int32_t **targets, const int32_t **weights)
{
    const int64_t *g = d->geometry;
    if (!g[0]) {
        *targets = (const int32_t *)d->targets + d->pointers[j];
        *weights = d->weights + d->pointers[j];
        return d->pointers[j + 1] - d->pointers[j];
    }
    const int64_t channel = j / (g[0] * g[1]), y = j / g[1] % g[0], x = j % g[1];
    int64_t taps = 0;
    for (int64_t dy = 0; dy < g[2]; dy++) {
        const int64_t scaled_y = y + g[6] - dy * g[8], to_y = scaled_y / g[4];
        if (scaled_y < 0 || scaled_y % g[4] || to_y >= g[10]) continue;
        for (int64_t dx = 0; dx < g[3]; dx++) {
            const int64_t scaled_x = x + g[7] - dx * g[9], to_x = scaled_x / g[5];
            if (scaled_x < 0 || scaled_x % g[5] || to_x >= g[11]) continue;
            const int64_t row = (channel * g[2] + dy) * g[3] + dx;
            for (int64_t k = d->pointers[row]; k < d->pointers[row + 1]; k++) {
                d->room_targets[taps] = (int32_t)(d->targets[k] + to_y * g[11] + to_x);
                d->room_weights[taps++] = d->weights[k];
            }
        }
    }
    *targets = d->room_targets;
    *weights = d->room_weights;
    return taps;
}

/* current[step][target][image] += weight for every spike: event-driven, for few spikes. */
#define SCATTER(BITS)                                                                                                    \
    static void scatter_##BITS(const Departure *d, const uint64_t *words, int negate, int##BITS##_t *current)                \
    {                                                                                                                    \
        for (int64_t j = 0; j < d->n_pre; j++) {                                                                         \
            uint64_t any = 0;                                                                                            \
            for (int64_t step = 0; step < STEPS; step++) any |= words[STEPS * j + step];                                 \
            if (!any) continue;                                                                                          \
            const int32_t *targets, *weights;                                                                            \
            const int64_t taps = fan_out(d, j, &targets, &weights);                                                      \
            for (int64_t step = 0; step < STEPS; step++)                                                                 \
                for (uint64_t word = words[STEPS * j + step]; word; word &= word - 1) {                                  \
                    int##BITS##_t *to = current + step * d->n_post * LANES + __builtin_ctzll(word);                      \
                    for (int64_t k = 0; k < taps; k++) {                                                                 \
                        const int##BITS##_t weight = (int##BITS##_t)weights[k];                                          \
                        to[(int64_t)targets[k] * LANES] += negate ? -weight : weight;                                    \
                    }                                                                                                    \
                }                                                                                                        \
        }                                                                                                                \
    }
SCATTER(16)
SCATTER(32)
SCATTER(64)

/* The masks (0 or -1) in a vector of 32- or 64-bit integers, one bit each. */
#if defined(__x86_64__)
#define PACK(ISA, TARGET, BITS32, BITS64)                                                             \
    TARGET static inline uint32_t pack_32_##ISA(const void *masks) { return (uint32_t)(BITS32); } \
    TARGET static inline uint32_t pack_64_##ISA(const void *masks) { return (uint32_t)(BITS64); }
PACK(plain, , _mm_movemask_ps(*(const __m128 *)masks), _mm_movemask_pd(*(const __m128d *)masks))
PACK(avx2, AVX2, _mm256_movemask_ps(*(const __m256 *)masks), _mm256_movemask_pd(*(const __m256d *)masks))
PACK(avx512, AVX512, _mm512_movepi32_mask(*(const __m512i *)masks), _mm512_movepi64_mask(*(const __m512i *)masks))
#else
static inline uint32_t pack_32_plain(const void *masks)
{
    const uint32_t *mask = masks;
    return (mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8);
}
static inline uint32_t pack_64_plain(const void *masks)
{
    const uint64_t *mask = masks;
    return (uint32_t)((mask[0] & 1) | (mask[1] & 2));
}
#endif

#define ISA plain
#define TARGET
#define WIDTH 16
#define REGISTERS 8
#define CHAINS 1
#include "simd_types.h"

#if defined(__x86_64__)
AVX2 static inline uint64_t pack_bytes_avx2(const int8_t *bytes)
{
    const uint32_t low = _mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)bytes));
    const uint32_t high = _mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)(bytes + 32)));
    return low | (uint64_t)high << 32;
}

#define ISA avx2
#define TARGET AVX2
#define WIDTH 32
#define REGISTERS 8
#define CHAINS 1
#include "simd_types.h"

AVX512 static inline uint64_t pack_bytes_avx512(const int8_t *bytes)
{
    return _mm512_movepi8_mask(_mm512_loadu_si512(bytes));
}

#define ISA avx512
#define TARGET AVX512
#define WIDTH 64
#define REGISTERS 16
#define CHAINS 4
#include "simd_types.h"
#define CHOOSE(isa, name) ((isa) == 2 ? name##_avx512 : (isa) == 1 ? name##_avx2 : name##_plain)
#else
#define CHOOSE(isa, name) name##_plain
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

EXPORT int64_t simd_version(void) { return VERSION; }

/* The best instruction set of this processor: 0 plain, 1 AVX2, 2 AVX-512. */
EXPORT int64_t simd_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

/* All steps of a population; currents of 16, 32 or 64 bits are 0, 1, 2, membranes of 32 or 64 bits 0, 1. */
EXPORT void simd_population(
    int64_t isa, int64_t currents, int64_t membranes, const Population *population, const Arrival *arrivals, int64_t count)
{
    Population p = *population;
    for (p.tile = 0; p.tile * STEPS < population->steps; p.tile++) {
        p.steps = population->steps - p.tile * STEPS < STEPS ? population->steps - p.tile * STEPS : STEPS;
        p.fresh = population->fresh && !p.tile;
        CHOOSE(isa, population_table)[currents][membranes](&p, arrivals, count);
        if (p.positive) p.positive += STEPS * p.neurons;
        if (p.negative) p.negative += STEPS * p.neurons;
        if (p.readout) p.readout += STEPS * p.neurons * LANES;
    }
}

/* What the spikes of one tile carry, words (n_pre, 8), is added to current (8, n_post, 64), or taken off it. */
EXPORT void simd_scatter(
    int64_t currents, const Departure *departure, const uint64_t *words, int64_t negate, void *current)
{
    if (currents == 0) scatter_16(departure, words, (int)negate, current);
    else if (currents == 1) scatter_32(departure, words, (int)negate, current);
    else scatter_64(departure, words, (int)negate, current);
}

/* current (n_post, 64) += weights times values (n_pre, 64): of 32 bits from 16 or 32, of 64 from 64 (0, 1, 2); the arrival's weights
 * are of 32 bits. */
EXPORT void simd_values(int64_t isa, int64_t types, int64_t n_post, const Arrival *arrival, const void *values, void *current)
{
    if (types == 0) CHOOSE(isa, values_16_32)(n_post, arrival, values, current);
    else if (types == 1) CHOOSE(isa, values_32_32)(n_post, arrival, values, current);
    else CHOOSE(isa, values_64_64)(n_post, arrival, values, current);
}

/* Images (images, n), at most 64, side by side: values (n, 64), zeros where there is no image, of 16 or 32 bits (0, 1); ``times``
 * where they are positive, and where they are negative, in counts (n, 64), of which the second may be NULL. */
EXPORT void simd_enter(
    int64_t isa, int64_t wide, int64_t n, int64_t images, int64_t times, const int64_t *from, void *values, int32_t *positive,
    int32_t *negative)
{
    if (wide) CHOOSE(isa, enter_32)(n, images, (int32_t)times, from, values, positive, negative);
    else CHOOSE(isa, enter_16)(n, images, (int32_t)times, from, values, positive, negative);
}

/* lanes (n, 64): one number a neuron for all images, both of 32 or 64 bits (0, 1). */
EXPORT void simd_spread(int64_t isa, int64_t wide, int64_t n, const void *numbers, void *lanes)
{
    if (wide) CHOOSE(isa, spread_64)(n, numbers, lanes);
    else CHOOSE(isa, spread_32)(n, numbers, lanes);
}

/* values (n, 64) += what the spikes of some slots carry; one payload a slot. */
EXPORT void simd_decode(int64_t isa, int64_t n, const uint64_t *words, int64_t slots, const int64_t *payloads, int64_t *values)
{
    CHOOSE(isa, decode)(n, words, slots, payloads, values);
}

/* The encode window of kind aec; membranes (n, 64), thresholds (slots,), words (tiles, n, 8), counts (n, 64). */
EXPORT void simd_encode(
    int64_t isa, int64_t n, int64_t slots, uint64_t lanes, const int64_t *primary, const int64_t *compensation, int64_t *membranes,
    uint64_t *primary_words, uint64_t *compensation_words, int32_t *counts)
{
    CHOOSE(isa, encode)(n, slots, lanes, primary, compensation, membranes, primary_words, compensation_words, counts);
}

/* classes (steps, 64): of membranes (steps, n, 64) the neuron with the largest, the first of several. */
EXPORT void simd_classes(int64_t isa, int64_t steps, int64_t n, const int64_t *membranes, int64_t *classes)
{
    for (int64_t step = 0; step < steps; step++)
        CHOOSE(isa, classes)(n, membranes + step * n * LANES, classes + step * LANES);
}

/* sums (sets, 64): of factor (sets, n) times count over neurons, for each image. */
EXPORT void simd_sum_counts(int64_t isa, int64_t n, int64_t sets, const int32_t *factors, const int32_t *counts, int64_t *sums)
{
    CHOOSE(isa, sum_counts)(n, sets, factors, counts, sums);
}

/* sums (n,): of counts over the first images, for each neuron. */
EXPORT void simd_sum_images(int64_t isa, int64_t n, int64_t images, const int32_t *counts, int64_t *sums)
{
    CHOOSE(isa, sum_images)(n, images, counts, sums);
}

/* sums (sets, tiles, 8): of factor (sets, n) times spikes over neurons and images, for each step. */
EXPORT void simd_sum_steps(
    int64_t isa, int64_t tiles, int64_t n, int64_t sets, const int32_t *factors, const uint64_t *words, int64_t *sums)
{
    CHOOSE(isa, sum_steps)(tiles, n, sets, factors, words, sums);
}

/* sums (tiles, 8, 64): of factor times spikes over neurons, for each step and image. */
EXPORT void simd_sum_spikes(int64_t isa, int64_t tiles, int64_t n, const int64_t *factors, const uint64_t *words, int64_t *sums)
{
    for (int64_t tile = 0; tile < tiles; tile++)
        CHOOSE(isa, sum_spikes)(n, factors, words + tile * n * STEPS, sums + tile * STEPS * LANES);
}
