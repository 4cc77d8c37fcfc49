/* One neuron at a time, 64 images side by side, up to 8 steps in a row. Included once for each instruction set and pair of
 * integer types; the includer defines
 *   ISA         suffix of the instruction set's functions          TARGET      their attribute
 *   WIDTH       bytes in a vector register                         REGISTERS   accumulators that fit in registers
 *   CHAINS      vectors of membranes that are updated at once
 *   CURRENT     type of a current, CURRENT_BITS its size           MEMBRANE    type of a membrane, MEMBRANE_BITS its size
 */

#define VECTOR NAME(Vector, CURRENT_BITS, ISA)
#define PER_STEP (LANES * CURRENT_BITS / 8 / WIDTH) /* vectors for the 64 images of one step */
#define GROUP (PER_STEP >= REGISTERS ? 1 : (REGISTERS / PER_STEP > STEPS ? STEPS : REGISTERS / PER_STEP)) /* steps at once */

#if MEMBRANE_BITS == 32 || CURRENT_BITS == 64 /* the first inclusion of each CURRENT */
typedef CURRENT VECTOR __attribute__((vector_size(WIDTH)));

/* currents[group][64] += weight for each image whose bit is set in the source's word of that step. */
TARGET static inline void NAME(gather, CURRENT_BITS, ISA)(
    VECTOR *currents, const int32_t *sources, const CURRENT *weights, int64_t count, int64_t known, const uint64_t *words, int negate)
{
    VECTOR sum[GROUP * PER_STEP];
    for (int i = 0; i < GROUP * PER_STEP; i++) sum[i] = currents[i];
#if WIDTH < 64
    VECTOR bit;
    for (int i = 0; i < WIDTH * 8 / CURRENT_BITS; i++) bit[i] = (CURRENT)((uint64_t)1 << i);
#endif
    for (int64_t k = 0; k < count; k++) {
        const uint64_t *from = words + (int64_t)STEPS * sources[k];
        if (k + AHEAD < known) __builtin_prefetch(words + (int64_t)STEPS * sources[k + AHEAD]);
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
typedef CURRENT NARROW __attribute__((vector_size(PART * CURRENT_BITS / 8)));
typedef int32_t TALLY __attribute__((vector_size(PART * 4), aligned(4)));

/* PART currents as wide as membranes. GCC converts half vectors, so what one instruction does is written out. */
TARGET static inline WIDE NAME4(widen, CURRENT_BITS, MEMBRANE_BITS, ISA)(const CURRENT *from)
{
#if WIDTH == 64 && CURRENT_BITS == 16 && MEMBRANE_BITS == 32
    return (WIDE)_mm512_cvtepi16_epi32(*(const __m256i *)from);
#elif WIDTH == 64 && CURRENT_BITS == 16
    return (WIDE)_mm512_cvtepi16_epi64(*(const __m128i *)from);
#elif WIDTH == 64 && CURRENT_BITS < MEMBRANE_BITS
    return (WIDE)_mm512_cvtepi32_epi64(*(const __m256i *)from);
#else
    return __builtin_convertvector(*(const NARROW *)from, WIDE);
#endif
}

/* What is left of x after a step, rounded toward zero: the product is taken in two parts, so that it stays as narrow as x. */
TARGET static inline WIDE NAME4(decayed, CURRENT_BITS, MEMBRANE_BITS, ISA)(WIDE x, WIDE decay)
{
    const WIDE negative = x < 0, size = (x ^ negative) - negative, keep = (1 << DECAY_BITS) - decay;
    const WIDE left = (size >> DECAY_BITS) * keep + (((size & ((1 << DECAY_BITS) - 1)) * keep) >> DECAY_BITS);
    return (left ^ negative) - negative;
}

#define BITS(before, after) NAME_OF(before, MEMBRANE_BITS, after)
#define EACH_PART _Pragma("GCC unroll 8") for (int i = 0; i < CHAINS; i++)

/* What neuron j does in all steps, for CHAINS vectors of images that do not wait for each other; membranes, constants and counts
 * stay in registers. ``kind``, ``zero_reset`` and whether ``current`` is NULL are constants where this is called, and select the
 * code. */
TARGET __attribute__((always_inline)) static inline void NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(
    const Population *p, int64_t j, int first, const CURRENT (*current)[LANES], uint64_t *positive, uint64_t *negative,
    const int kind, const int zero_reset)
{
    const int64_t at = j * LANES + first;
    WIDE v[CHAINS], constant[CHAINS], spikes[CHAINS], taken[CHAINS], net[CHAINS], flow[CHAINS];
    WIDE threshold = {0}, threshold_neg = {0}, bias = {0}, decay_current = {0}, decay_voltage = {0};
    memcpy(v, (MEMBRANE *)p->membranes + at, sizeof v);
    if (p->constant) memcpy(constant, (const MEMBRANE *)p->constant + at, sizeof constant);
    EACH_PART {
        if (!p->constant) constant[i] = (WIDE){0};
        spikes[i] = taken[i] = net[i] = (WIDE){0};
        if (kind == SIGNED_IF) net[i] = __builtin_convertvector(*(const TALLY *)(p->net + at + i * PART), WIDE);
    }
    if (kind != READOUT) threshold += ((const MEMBRANE *)p->threshold)[j];
    if (kind == SIGNED_IF) threshold_neg += ((const MEMBRANE *)p->threshold_neg)[j];
    if (kind == LIF) {
        memcpy(flow, (MEMBRANE *)p->flow + at, sizeof flow);
        if (p->bias) bias += ((const MEMBRANE *)p->bias)[j];
        decay_current += ((const MEMBRANE *)p->decay_current)[j];
        decay_voltage += ((const MEMBRANE *)p->decay_voltage)[j];
    }
    for (int64_t step = 0; step < p->steps; step++) {
        uint64_t fired = 0, back = 0;
        EACH_PART {
            WIDE x = constant[i];
            if (current) x += NAME4(widen, CURRENT_BITS, MEMBRANE_BITS, ISA)(current[step] + first + i * PART);
            if (kind == LIF) {
                flow[i] += x;
                x = flow[i] + bias;
                flow[i] = NAME4(decayed, CURRENT_BITS, MEMBRANE_BITS, ISA)(flow[i], decay_current);
            }
            x += v[i];
            if (kind == READOUT) {
                v[i] = x;
                continue;
            }
#if WIDTH == 64
            if (kind == IF) { /* with masks in their own registers, which GCC does not find by itself */
                const uint64_t mask = BITS(_mm512_cmpge_epi, _mask)((__m512i)x, (__m512i)threshold);
                const WIDE kept = zero_reset ? (WIDE){0} : x - threshold;
                v[i] = (WIDE)BITS(_mm512_mask_mov_epi, )((__m512i)x, mask, (__m512i)kept);
                spikes[i] = (WIDE)BITS(_mm512_mask_sub_epi, )((__m512i)spikes[i], mask, (__m512i)spikes[i], (__m512i)((WIDE){0} - 1));
                fired |= mask << (i * PART);
                continue;
            }
#endif
            const WIDE spike = x >= threshold;
            v[i] = zero_reset ? x & ~spike : x - (threshold & spike);
            spikes[i] -= spike;
            fired |= (uint64_t)NAME(pack, MEMBRANE_BITS, ISA)(&spike) << (i * PART);
            if (kind == LIF) v[i] = NAME4(decayed, CURRENT_BITS, MEMBRANE_BITS, ISA)(v[i], decay_voltage);
            if (kind == SIGNED_IF) {
                const WIDE memory = (x <= -threshold_neg) & (net[i] > 0);
                v[i] += threshold_neg & memory;
                net[i] += memory - spike;
                taken[i] -= memory;
                back |= (uint64_t)NAME(pack, MEMBRANE_BITS, ISA)(&memory) << (i * PART);
            }
        }
        positive[step] |= fired << first;
        if (kind == SIGNED_IF) negative[step] |= back << first;
        if (kind == READOUT) {
            int64_t *to = p->readout + (step * p->neurons + j) * LANES + first;
            MEMBRANE reached[CHAINS * PART];
            memcpy(reached, v, sizeof v);
            for (int k = 0; k < CHAINS * PART; k++) to[k] = reached[k];
        }
    }
    memcpy((MEMBRANE *)p->membranes + at, v, sizeof v);
    if (kind == LIF) memcpy((MEMBRANE *)p->flow + at, flow, sizeof flow);
    EACH_PART {
        if (kind != READOUT) {
            TALLY *to = (TALLY *)(p->positive_counts + at + i * PART);
            const TALLY more = __builtin_convertvector(spikes[i], TALLY);
            *to = p->fresh ? more : *to + more;
        }
        if (kind == SIGNED_IF) {
            TALLY *to = (TALLY *)(p->negative_counts + at + i * PART);
            const TALLY more = __builtin_convertvector(taken[i], TALLY);
            *to = p->fresh ? more : *to + more;
            *(TALLY *)(p->net + at + i * PART) = __builtin_convertvector(net[i], TALLY);
        }
    }
}

TARGET static void NAME4(population, CURRENT_BITS, MEMBRANE_BITS, ISA)(const Population *p, const Arrival *arrivals, int64_t count)
{
    const int constant = p->kind == IF && !p->zero_reset && !count && !p->scattered; /* behind the input alone */
    for (int64_t j = 0; j < p->neurons; j++) {
        _Alignas(64) CURRENT current[STEPS][LANES];
        if (p->scattered)
            for (int64_t step = 0; step < p->steps; step++)
                memcpy(current[step], (const CURRENT *)p->scattered + (step * p->neurons + j) * LANES, sizeof current[0]);
        else if (!constant) /* not by memset, whose string instruction takes longer to begin than this to end */
            for (int i = 0; i < STEPS * PER_STEP; i++) ((VECTOR *)current)[i] = (VECTOR){0};
        for (int64_t r = 0; r < count; r++) {
            const Arrival *a = &arrivals[r];
            const int32_t *sources;
            const CURRENT *weights;
            const int64_t words = p->tile * STEPS * a->n_pre;
            const int64_t taps = NAME(fan_in, CURRENT_BITS, any)(a, j, &sources, &weights);
            const int64_t known = a->offsets ? taps : a->pointers[p->neurons] - a->pointers[j];
            for (int64_t step = 0; step < p->steps; step += GROUP) {
                VECTOR *to = (VECTOR *)current[step];
                NAME(gather, CURRENT_BITS, ISA)(to, sources, weights, taps, known, a->positive + words + step, 0);
                if (a->negative) NAME(gather, CURRENT_BITS, ISA)(to, sources, weights, taps, known, a->negative + words + step, 1);
            }
        }
        uint64_t positive[STEPS] = {0}, negative[STEPS] = {0};
        for (int first = 0; first < LANES; first += CHAINS * PART) {
            if (p->kind == READOUT)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, READOUT, 0);
            else if (p->kind == IF && p->zero_reset)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, IF, 1);
            else if (p->kind == IF && !constant)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, IF, 0);
            else if (p->kind == IF)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, NULL, positive, negative, IF, 0);
            else if (p->kind == LIF && p->zero_reset)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, LIF, 1);
            else if (p->kind == LIF)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, LIF, 0);
            else if (p->zero_reset)
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, SIGNED_IF, 1);
            else
                NAME4(fire, CURRENT_BITS, MEMBRANE_BITS, ISA)(p, j, first, current, positive, negative, SIGNED_IF, 0);
        }
        for (int64_t step = 0; step < STEPS; step++) {
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
#undef EACH_PART
#undef BITS
