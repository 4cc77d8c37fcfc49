/* One neuron at a time, 64 images side by side, up to 8 steps in a row. Included once for each instruction set and pair of
 * integer types; the includer defines
 *   ISA         suffix of the instruction set's functions          TARGET      their attribute
 *   WIDTH       bytes in a vector register                         REGISTERS   accumulators that fit in registers
 *   CURRENT     type of a current, CURRENT_BITS its size           MEMBRANE    type of a membrane, MEMBRANE_BITS its size
 */

#define VECTOR NAME(Vector, CURRENT_BITS, ISA)
#define PER_STEP (LANES * CURRENT_BITS / 8 / WIDTH) /* vectors for the 64 images of one step */
#define GROUP (PER_STEP >= REGISTERS ? 1 : (REGISTERS / PER_STEP > STEPS ? STEPS : REGISTERS / PER_STEP)) /* steps at once */

#if MEMBRANE_BITS == 32 || CURRENT_BITS == 64 /* the first inclusion of each CURRENT */
typedef CURRENT VECTOR __attribute__((vector_size(WIDTH)));

/* currents[group][64] += weight for each image whose bit is set in the source's word of that step. */
TARGET static inline void NAME(gather, CURRENT_BITS, ISA)(
    VECTOR *currents, const int32_t *sources, const CURRENT *weights, int64_t count, const uint64_t *words, int negate)
{
    VECTOR sum[GROUP * PER_STEP];
    for (int i = 0; i < GROUP * PER_STEP; i++) sum[i] = currents[i];
#if WIDTH < 64
    VECTOR bit;
    for (int i = 0; i < WIDTH * 8 / CURRENT_BITS; i++) bit[i] = (CURRENT)((uint64_t)1 << i);
#endif
    for (int64_t k = 0; k < count; k++) {
        const uint64_t *from = words + (int64_t)STEPS * sources[k];
        const VECTOR weight = (VECTOR){} + (CURRENT)(negate ? -weights[k] : weights[k]);
#pragma GCC unroll 8
        for (int step = 0; step < GROUP; step++) {
#pragma GCC unroll 32
            for (int i = 0; i < PER_STEP; i++) {
                VECTOR *to = &sum[step * PER_STEP + i];
#if WIDTH == 64 && CURRENT_BITS == 16
                *to = (VECTOR)_mm512_mask_add_epi16((__m512i)*to, ((const __mmask32 *)(from + step))[i], (__m512i)*to, (__m512i)weight);
#elif WIDTH == 64 && CURRENT_BITS == 32
                *to = (VECTOR)_mm512_mask_add_epi32((__m512i)*to, ((const __mmask16 *)(from + step))[i], (__m512i)*to, (__m512i)weight);
#elif WIDTH == 64
                *to = (VECTOR)_mm512_mask_add_epi64((__m512i)*to, ((const __mmask8 *)(from + step))[i], (__m512i)*to, (__m512i)weight);
#else
                const VECTOR chunk = (VECTOR){} + (CURRENT)(from[step] >> (i * (WIDTH * 8 / CURRENT_BITS)));
                *to += weight & ((chunk & bit) == bit);
#endif
            }
        }
    }
    for (int i = 0; i < GROUP * PER_STEP; i++) currents[i] = sum[i];
}
#endif

#define WIDE NAME4(Wide, CURRENT_BITS, MEMBRANE_BITS, ISA)
#define NARROW NAME4(Narrow, CURRENT_BITS, MEMBRANE_BITS, ISA)
#define TALLY NAME4(Tally, CURRENT_BITS, MEMBRANE_BITS, ISA)
#define PART (WIDTH * 8 / MEMBRANE_BITS) /* images in a vector of membranes */
typedef MEMBRANE WIDE __attribute__((vector_size(WIDTH)));
typedef CURRENT NARROW __attribute__((vector_size(PART * CURRENT_BITS / 8), aligned(CURRENT_BITS / 8)));
typedef int32_t TALLY __attribute__((vector_size(PART * 4), aligned(4)));

/* What PART images' neurons j do in all steps, with everything in registers; the constants select the code. */
TARGET __attribute__((always_inline)) static inline void NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(
    const Population *p, int64_t j, int part, const CURRENT (*current)[LANES], uint64_t *positive, uint64_t *negative,
    const int kind, const int zero_reset)
{
    const int64_t at = j * LANES + part * PART;
    WIDE v, constant = {0}, threshold = {0}, threshold_neg = {0}, spikes = {0}, taken = {0}, net = {0};
    memcpy(&v, (MEMBRANE *)p->membranes + at, sizeof v);
    if (p->constant) memcpy(&constant, (const MEMBRANE *)p->constant + at, sizeof constant);
    if (kind != READOUT) threshold += ((const MEMBRANE *)p->threshold)[j];
    if (kind == SIGNED_IF) {
        threshold_neg += ((const MEMBRANE *)p->threshold_neg)[j];
        net = __builtin_convertvector(*(const TALLY *)(p->net + at), WIDE);
    }
    for (int64_t step = 0; step < p->steps; step++) {
        const WIDE x = v + constant + __builtin_convertvector(*(const NARROW *)(current[step] + part * PART), WIDE);
        if (kind == READOUT) {
            v = x;
            for (int i = 0; i < PART; i++) p->readout[(step * p->neurons + j) * LANES + part * PART + i] = x[i];
            continue;
        }
        const WIDE spike = x >= threshold;
        v = zero_reset ? x & ~spike : x - (threshold & spike);
        spikes -= spike;
        positive[step] |= (uint64_t)NAME(pack, MEMBRANE_BITS, ISA)(&spike) << (part * PART);
        if (kind == SIGNED_IF) {
            const WIDE memory = (x <= -threshold_neg) & (net > 0);
            v += threshold_neg & memory;
            net += memory - spike;
            taken -= memory;
            negative[step] |= (uint64_t)NAME(pack, MEMBRANE_BITS, ISA)(&memory) << (part * PART);
        }
    }
    memcpy((MEMBRANE *)p->membranes + at, &v, sizeof v);
    if (kind != READOUT) *(TALLY *)(p->positive_counts + at) += __builtin_convertvector(spikes, TALLY);
    if (kind == SIGNED_IF) {
        *(TALLY *)(p->negative_counts + at) += __builtin_convertvector(taken, TALLY);
        *(TALLY *)(p->net + at) = __builtin_convertvector(net, TALLY);
    }
}

TARGET static void NAME4(population, CURRENT_BITS, MEMBRANE_BITS, ISA)(const Population *p, const Arrival *arrivals, int64_t count)
{
    for (int64_t j = 0; j < p->neurons; j++) {
        _Alignas(64) CURRENT current[STEPS][LANES];
        if (p->scattered)
            for (int64_t step = 0; step < p->steps; step++)
                memcpy(current[step], (const CURRENT *)p->scattered + (step * p->neurons + j) * LANES, sizeof current[0]);
        else
            memset(current, 0, sizeof current);
        for (int64_t r = 0; r < count; r++) {
            const Arrival *a = &arrivals[r];
            const int32_t *sources;
            const CURRENT *weights;
            const int64_t taps = NAME(fan_in, CURRENT_BITS, any)(a, j, &sources, &weights);
            for (int64_t step = 0; step < p->steps; step += GROUP) {
                VECTOR *to = (VECTOR *)current[step];
                NAME(gather, CURRENT_BITS, ISA)(to, sources, weights, taps, a->positive + step, 0);
                if (a->negative) NAME(gather, CURRENT_BITS, ISA)(to, sources, weights, taps, a->negative + step, 1);
            }
        }
        uint64_t positive[STEPS] = {0}, negative[STEPS] = {0};
        for (int part = 0; part < LANES / PART; part++) {
            if (p->kind == READOUT)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, part, current, positive, negative, READOUT, 0);
            else if (p->kind == IF && p->zero_reset)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, part, current, positive, negative, IF, 1);
            else if (p->kind == IF)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, part, current, positive, negative, IF, 0);
            else if (p->zero_reset)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, part, current, positive, negative, SIGNED_IF, 1);
            else
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, part, current, positive, negative, SIGNED_IF, 0);
        }
        for (int64_t step = 0; step < p->steps; step++) {
            if (p->positive) p->positive[STEPS * j + step] = positive[step] & p->lanes;
            if (p->negative) p->negative[STEPS * j + step] = negative[step] & p->lanes;
        }
    }
}

#undef VECTOR
#undef PER_STEP
#undef GROUP
#undef WIDE
#undef NARROW
#undef TALLY
#undef PART
