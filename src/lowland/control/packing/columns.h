/* Products with many vectors at a time: the lanes are positions, neighbors in memory.
 *
 * Column k of the matrix meets x[offset[k] + p] at position p, so that one kernel serves the
 * product of matrices (offset[k] = k n) and the convolution of a padded, flattened image (the
 * offset of a channel, a row and a column of the filter). A tile of positions is held in
 * registers while a row's nonzeros are walked.
 *
 * Included once for each instruction set, with VEC, LANES, LOAD, STORE, ADD, SUB, ZERO, TARGET
 * and NAME defined. x may be read and out written up to a multiple of 16 positions.
 */

/* All sixteen signed sums, or sums of subsets, of four columns, at a tile of positions. */
TARGET INLINE void NAME(tables)(const int vectors, VEC *t, const float *const *x, int planes)
{
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        VEC value[4], low[4], high[4];
        for (int i = 0; i < 4; i++)
            value[i] = x[i] ? LOAD(x[i] + LANES * v) : ZERO;
        if (planes) {
            low[0] = high[0] = ZERO;
            low[1] = value[0], low[2] = value[1], low[3] = ADD(value[0], value[1]);
            high[1] = value[2], high[2] = value[3], high[3] = ADD(value[2], value[3]);
        } else {
            low[3] = ADD(value[0], value[1]), low[1] = SUB(value[0], value[1]);
            low[0] = SUB(ZERO, low[3]), low[2] = SUB(ZERO, low[1]);
            high[3] = ADD(value[2], value[3]), high[1] = SUB(value[2], value[3]);
            high[0] = SUB(ZERO, high[3]), high[2] = SUB(ZERO, high[1]);
        }
        for (int n = 0; n < 16; n++)
            t[vectors * n + v] = ADD(low[n & 3], high[n >> 2]);
    }
}

/* What eight nibbles of a word name, added to a tile of sums or, with sign -1, subtracted. */
TARGET INLINE void NAME(add_sums)(const int vectors, VEC *sum, const VEC *t, uint32_t word,
                                  int sign)
{
    const uint64_t wide = (uint64_t)word * vectors; /* nibbles count vectors: 1, 2 or 4 */
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        const VEC *entry = t + 16 * vectors * j + (wide >> 4 * j & 15 * vectors);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[v] = sign > 0 ? ADD(sum[v], entry[v]) : SUB(sum[v], entry[v]);
    }
}

TARGET INLINE void NAME(bits_tile)(const int vectors, const Columns *c, int64_t first,
                                   int64_t last, const float *x, float *out)
{
    VEC t[8 * 16 * 4];
    const int64_t words = (c->columns + 31) / 32;
    for (int64_t w = 0; w < words; w++) {
        for (int j = 0; j < 8; j++) {
            const float *four[4];
            for (int64_t i = 0, k = 32 * w + 4 * j; i < 4; i++, k++)
                four[i] = k < c->columns ? x + c->offsets[k] : NULL;
            NAME(tables)(vectors, t + 16 * vectors * j, four, c->minus != NULL);
        }
        const uint32_t *plus = c->plus + w * c->rows, *minus = c->minus + w * c->rows;
        for (int64_t r = first; r < last; r++) {
            float *y = out + r * c->out_stride;
            VEC sum[4];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[v] = w ? LOAD(y + LANES * v) : ZERO;
            NAME(add_sums)(vectors, sum, t, plus[r], 1);
            if (c->minus)
                NAME(add_sums)(vectors, sum, t, minus[r], -1);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                STORE(y + LANES * v, sum[v]);
        }
    }
}

TARGET INLINE void NAME(lists_tile)(const int vectors, const Columns *c, int64_t first,
                                    int64_t last, const float *x, float *out)
{
    for (int64_t r = first; r < last; r++) {
        const int32_t *starts = c->starts + 2 * r;
        VEC sum[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[v] = ZERO;
        for (int32_t i = starts[0]; i < starts[1]; i++) {
            const float *from = x + c->offsets[c->lists[i]];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[v] = ADD(sum[v], LOAD(from + LANES * v));
        }
        for (int32_t i = starts[1]; i < starts[2]; i++) {
            const float *from = x + c->offsets[c->lists[i]];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[v] = SUB(sum[v], LOAD(from + LANES * v));
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            STORE(out + r * c->out_stride + LANES * v, sum[v]);
    }
}

TARGET INLINE void NAME(some)(const int vectors, const Columns *c, int64_t first, int64_t last,
                              const float *x, float *out)
{
    if (c->starts)
        NAME(lists_tile)(vectors, c, first, last, x, out);
    else
        NAME(bits_tile)(vectors, c, first, last, x, out);
}

/* Rows first <= r < last at the positions from p on, as many as a tile has or as are left. */
TARGET static void NAME(tile)(const Columns *c, int64_t first, int64_t last, const float *x,
                              int64_t p)
{
    const int64_t left = (c->positions - p + LANES - 1) / LANES;
    float *out = c->out + p;
    x += p;
    if (left >= 4) {
        NAME(some)(4, c, first, last, x, out);
        return;
    }
    if (left & 2)
        NAME(some)(2, c, first, last, x, out);
    if (left & 1)
        NAME(some)(1, c, first, last, x + (left & 2) * LANES, out + (left & 2) * LANES);
}

#undef VEC
#undef LANES
#undef LOAD
#undef STORE
#undef ADD
#undef SUB
#undef ZERO
#undef TARGET
#undef NAME
