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
        MEMBRANE v[LANES];
        MEMBRANE constant[LANES];
        memcpy(v, (MEMBRANE *)p->membranes + j * LANES, sizeof v);
        if (p->constant)
            memcpy(constant, (const MEMBRANE *)p->constant + j * LANES, sizeof constant);
        else
            memset(constant, 0, sizeof constant);
        if (p->kind == READOUT) {
            for (int64_t step = 0; step < p->steps; step++)
                for (int i = 0; i < LANES; i++) {
                    v[i] += constant[i] + current[step][i];
                    p->readout[(step * p->neurons + j) * LANES + i] = v[i];
                }
            memcpy((MEMBRANE *)p->membranes + j * LANES, v, sizeof v);
            continue;
        }
        const MEMBRANE threshold = ((const MEMBRANE *)p->threshold)[j];
        int8_t spikes[LANES] = {0};
        if (p->kind == IF) {
            const MEMBRANE keep = p->zero_reset ? 0 : -1;
            for (int64_t step = 0; step < p->steps; step++) {
                int8_t fired[LANES];
                for (int i = 0; i < LANES; i++) {
                    const MEMBRANE x = v[i] + constant[i] + current[step][i];
                    const MEMBRANE spike = -(MEMBRANE)(x >= threshold);
                    v[i] = (x - (threshold & spike)) & (keep | ~spike);
                    fired[i] = (int8_t)spike;
                    spikes[i] -= fired[i];
                }
                p->positive[STEPS * j + step] = NAME(pack, bytes, ISA)(fired) & p->lanes;
            }
        } else {
            const MEMBRANE threshold_neg = ((const MEMBRANE *)p->threshold_neg)[j];
            const MEMBRANE keep = p->zero_reset ? 0 : -1;
            int8_t taken[LANES] = {0};
            int32_t *net = p->net + j * LANES;
            for (int64_t step = 0; step < p->steps; step++) {
                int8_t fired[LANES], back[LANES];
                for (int i = 0; i < LANES; i++) {
                    const MEMBRANE x = v[i] + constant[i] + current[step][i];
                    const MEMBRANE spike = -(MEMBRANE)(x >= threshold);
                    const MEMBRANE memory = -(MEMBRANE)((x <= -threshold_neg) & (net[i] > 0));
                    v[i] = ((x - (threshold & spike)) & (keep | ~spike)) + (threshold_neg & memory);
                    fired[i] = (int8_t)spike;
                    back[i] = (int8_t)memory;
                    net[i] += (int32_t)memory - (int32_t)spike;
                    spikes[i] -= fired[i];
                    taken[i] -= back[i];
                }
                p->positive[STEPS * j + step] = NAME(pack, bytes, ISA)(fired) & p->lanes;
                p->negative[STEPS * j + step] = NAME(pack, bytes, ISA)(back) & p->lanes;
            }
            for (int i = 0; i < LANES; i++) p->negative_counts[j * LANES + i] += taken[i];
        }
        for (int i = 0; i < LANES; i++) p->positive_counts[j * LANES + i] += spikes[i];
        memcpy((MEMBRANE *)p->membranes + j * LANES, v, sizeof v);
    }
}

#undef VECTOR
#undef PER_STEP
#undef GROUP
