/* Products with one vector at a time: neighboring rows of the matrix are the lanes.
 *
 * Bits. Four neighboring activations have sixteen signed sums. A nibble of the packed matrix
 * names one of them, and a permutation of a register looks up the sums of many rows at once:
 * sixteen entries with AVX-512; with AVX2, whose permutation reads three bits, eight.
 *
 * Lists. A row adds the activations its list names and subtracts those after the middle of it.
 */

#define BLOCK_WORDS 64 /* 2048 columns: their tables stay in the first level cache */
#define BLOCK_COLUMNS (32 * BLOCK_WORDS)

/* plus: (words, stride), one word of 32 columns for each row; minus: the same, or NULL where a
   zero bit is a weight of -1. The rows first <= r < last of one block of words. */
typedef struct {
    const uint32_t *plus, *minus;
    int64_t words, stride, first, last;
} Bits;

/* What a zero bit adds: -x where the bit is a sign, nothing where it is one of two planes. */
static inline float low_of(float x, int planes) { return planes ? 0.0f : -x; }

static void nibble_tables(float *tables, const float *x, int64_t words, int planes)
{
    for (int64_t k = 0; k < 8 * words; k++, x += 4, tables += 16) {
        float low[4], high[4];
        for (int n = 0; n < 4; n++) {
            low[n] = (n & 1 ? x[0] : low_of(x[0], planes)) + (n & 2 ? x[1] : low_of(x[1], planes));
            high[n] = (n & 1 ? x[2] : low_of(x[2], planes)) + (n & 2 ? x[3] : low_of(x[3], planes));
        }
        for (int n = 0; n < 16; n++)
            tables[n] = low[n & 3] + high[n >> 2];
    }
}

static inline float look_up(const float *tables, uint32_t word)
{
    float sum = 0.0f;
    for (int j = 0; j < 8; j++, word >>= 4)
        sum += tables[16 * j + (word & 15)];
    return sum;
}

static void bits_scalar(Bits b, const float *x, float *out)
{
    float tables[8 * BLOCK_WORDS * 16];
    nibble_tables(tables, x, b.words, b.minus != NULL);
    for (int64_t w = 0; w < b.words; w++) {
        const uint32_t *plus = b.plus + w * b.stride;
        const float *t = tables + 128 * w;
        for (int64_t r = b.first; r < b.last; r++)
            out[r] += look_up(t, plus[r]);
        if (!b.minus)
            continue;
        const uint32_t *minus = b.minus + w * b.stride;
        for (int64_t r = b.first; r < b.last; r++)
            out[r] -= look_up(t, minus[r]);
    }
}

/* Four sums, so that an addition need not wait for the one before it. */
static inline float sum_of(const uint16_t *columns, int32_t count, const float *x)
{
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        a += x[columns[i]];
        b += x[columns[i + 1]];
        c += x[columns[i + 2]];
        d += x[columns[i + 3]];
    }
    for (; i < count; i++)
        a += x[columns[i]];
    return (a + b) + (c + d);
}

/* starts: (2 rows + 1): the row's list begins, turns from plus to minus, ends. */
static void lists_scalar(const uint16_t *columns, const int32_t *starts, int64_t first,
                         int64_t last, const float *x, float *out)
{
    for (int64_t r = first; r < last; r++) {
        const int32_t begin = starts[2 * r], middle = starts[2 * r + 1], end = starts[2 * r + 2];
        out[r] = sum_of(columns + begin, middle - begin, x)
                 - sum_of(columns + middle, end - middle, x);
    }
}

#ifdef X86

/* ---- AVX-512: sixteen rows in a register, tables of four columns ---- */

TARGET_512 static void nibble_tables_avx512(float *tables, const float *x, int64_t words,
                                            int planes)
{
    const __m512 zero = _mm512_setzero_ps();
    for (int64_t k = 0; k < 8 * words; k++, x += 4, tables += 16) {
        __m512 part[4];
        for (int i = 0; i < 4; i++) {
            const __mmask16 set[4] = {0xAAAA, 0xCCCC, 0xF0F0, 0xFF00};
            const __m512 high = _mm512_set1_ps(x[i]);
            const __m512 low = planes ? zero : _mm512_sub_ps(zero, high);
            part[i] = _mm512_mask_mov_ps(low, set[i], high);
        }
        _mm512_store_ps(tables, _mm512_add_ps(_mm512_add_ps(part[0], part[1]),
                                              _mm512_add_ps(part[2], part[3])));
    }
}

TARGET_512 INLINE __m512 look_up_avx512(const __m512 *t, __m512i word)
{
#define SUM(j) _mm512_permutexvar_ps(_mm512_srli_epi32(word, 4 * (j)), t[j])
    const __m512 a = _mm512_add_ps(_mm512_permutexvar_ps(word, t[0]), SUM(1));
    const __m512 b = _mm512_add_ps(SUM(2), SUM(3));
    const __m512 c = _mm512_add_ps(SUM(4), SUM(5));
    const __m512 d = _mm512_add_ps(SUM(6), SUM(7));
#undef SUM
    return _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
}

/* `groups` registers of rows from row r on; `lanes` names the rows in the last one. */
TARGET_512 INLINE void bits_rows_avx512(const int groups, __mmask16 lanes, Bits b, int64_t r,
                                        const float *tables, float *out)
{
    __m512 sum[16];
#pragma GCC unroll 16
    for (int g = 0; g < groups; g++)
        sum[g] = _mm512_maskz_loadu_ps(g == groups - 1 ? lanes : 0xFFFF, out + r + 16 * g);
    for (int64_t w = 0; w < b.words; w++) {
        __m512 t[8];
        for (int j = 0; j < 8; j++)
            t[j] = _mm512_load_ps(tables + 128 * w + 16 * j);
        const uint32_t *plus = b.plus + w * b.stride + r;
        const uint32_t *minus = b.minus ? b.minus + w * b.stride + r : NULL;
#pragma GCC unroll 16
        for (int g = 0; g < groups; g++) {
            const __mmask16 mask = g == groups - 1 ? lanes : 0xFFFF;
            const __m512i p = _mm512_maskz_loadu_epi32(mask, plus + 16 * g);
            sum[g] = _mm512_add_ps(sum[g], look_up_avx512(t, p));
            if (!minus)
                continue;
            const __m512i m = _mm512_maskz_loadu_epi32(mask, minus + 16 * g);
            sum[g] = _mm512_sub_ps(sum[g], look_up_avx512(t, m));
        }
    }
#pragma GCC unroll 16
    for (int g = 0; g < groups; g++)
        _mm512_mask_storeu_ps(out + r + 16 * g, g == groups - 1 ? lanes : 0xFFFF, sum[g]);
}

TARGET_512 static void bits_avx512(Bits b, const float *x, float *out)
{
    ALIGNED float tables[8 * BLOCK_WORDS * 16];
    nibble_tables_avx512(tables, x, b.words, b.minus != NULL);
    int64_t r = b.first;
    for (; r + 256 <= b.last; r += 256)
        bits_rows_avx512(16, 0xFFFF, b, r, tables, out);
    for (; r + 64 <= b.last; r += 64)
        bits_rows_avx512(4, 0xFFFF, b, r, tables, out);
    for (; r < b.last; r += 16) {
        const __mmask16 lanes = r + 16 <= b.last ? 0xFFFF : (1 << (b.last - r)) - 1;
        bits_rows_avx512(1, lanes, b, r, tables, out);
    }
}

TARGET_512 static void lists_avx512(const uint16_t *columns, const int32_t *starts, int64_t first,
                                    int64_t last, const float *x, float *out)
{
    const __m512 zero = _mm512_setzero_ps();
    for (int64_t r = first; r < last; r++) {
        const int32_t middle = starts[2 * r + 1], end = starts[2 * r + 2];
        __m512 sum = zero;
        for (int32_t i = starts[2 * r]; i < end; i += 16) {
            const __mmask16 some = _bzhi_u32(0xFFFF, end - i < 16 ? end - i : 16);
            const int32_t positive = middle - i < 0 ? 0 : middle - i < 16 ? middle - i : 16;
            const __mmask16 minus = 0xFFFFu << positive;
            const __m512i at = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, columns + i));
            const __m512 value = _mm512_mask_i32gather_ps(zero, some, at, x, 4);
            sum = _mm512_add_ps(sum, _mm512_mask_sub_ps(value, minus, zero, value));
        }
        out[r] = _mm512_reduce_add_ps(sum);
    }
}

/* ---- AVX2: eight rows in a register, eleven tables of three columns for each word ----
 * The first eight tables hold columns 4j, 4j + 1, 4j + 2; the others the columns 4j + 3, whose
 * bits two shifts bring together. */

#define TABLES_2 11

TARGET_2 static void triple_tables_avx2(float *tables, const float *x, int64_t words, int planes)
{
    const __m256 zero = _mm256_setzero_ps();
    const __m256i entry = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t w = 0; w < words; w++, x += 32)
        for (int j = 0; j < TABLES_2; j++, tables += 8) {
            __m256 sum = zero;
            for (int i = 0; i < 3; i++) {
                const int column = j < 8 ? 4 * j + i : 12 * (j - 8) + 4 * i + 3;
                if (column > 31)
                    continue;
                const __m256 high = _mm256_set1_ps(x[column]);
                const __m256 low = planes ? zero : _mm256_sub_ps(zero, high);
                const __m256i set = _mm256_sllv_epi32(entry, _mm256_set1_epi32(31 - i));
                sum = _mm256_add_ps(sum, _mm256_blendv_ps(low, high, _mm256_castsi256_ps(set)));
            }
            _mm256_store_ps(tables, sum);
        }
}

TARGET_2 INLINE __m256 look_up_avx2(const float *t, __m256i word)
{
    __m256i fourth = _mm256_and_si256(_mm256_srli_epi32(word, 3), _mm256_set1_epi32(0x11111111));
    fourth = _mm256_or_si256(_mm256_or_si256(fourth, _mm256_srli_epi32(fourth, 3)),
                             _mm256_srli_epi32(fourth, 6));
#define SUM(j, bits) _mm256_permutevar8x32_ps(_mm256_load_ps(t + 8 * (j)), bits)
#define AT(n) _mm256_srli_epi32(word, 4 * (n))
    __m256 a = _mm256_add_ps(SUM(0, word), SUM(1, AT(1)));
    __m256 b = _mm256_add_ps(SUM(2, AT(2)), SUM(3, AT(3)));
    __m256 c = _mm256_add_ps(SUM(4, AT(4)), SUM(5, AT(5)));
    __m256 d = _mm256_add_ps(SUM(6, AT(6)), SUM(7, AT(7)));
    a = _mm256_add_ps(a, SUM(8, fourth));
    b = _mm256_add_ps(b, SUM(9, _mm256_srli_epi32(fourth, 12)));
    c = _mm256_add_ps(c, SUM(10, _mm256_srli_epi32(fourth, 24)));
#undef AT
#undef SUM
    return _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
}

TARGET_2 INLINE void bits_rows_avx2(const int groups, __m256i lanes, Bits b, int64_t r,
                                    const float *tables, float *out)
{
    __m256 sum[8];
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++)
        sum[g] = _mm256_maskload_ps(out + r + 8 * g, lanes);
    for (int64_t w = 0; w < b.words; w++) {
        const float *t = tables + 8 * TABLES_2 * w;
        const int *plus = (const int *)(b.plus + w * b.stride + r);
        const int *minus = b.minus ? (const int *)(b.minus + w * b.stride + r) : NULL;
#pragma GCC unroll 8
        for (int g = 0; g < groups; g++) {
            const __m256i p = _mm256_maskload_epi32(plus + 8 * g, lanes);
            sum[g] = _mm256_add_ps(sum[g], look_up_avx2(t, p));
            if (!minus)
                continue;
            const __m256i m = _mm256_maskload_epi32(minus + 8 * g, lanes);
            sum[g] = _mm256_sub_ps(sum[g], look_up_avx2(t, m));
        }
    }
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++)
        _mm256_maskstore_ps(out + r + 8 * g, lanes, sum[g]);
}

TARGET_2 static void bits_avx2(Bits b, const float *x, float *out)
{
    ALIGNED float tables[8 * TABLES_2 * BLOCK_WORDS];
    triple_tables_avx2(tables, x, b.words, b.minus != NULL);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), all = _mm256_set1_epi32(-1);
    int64_t r = b.first;
    for (; r + 64 <= b.last; r += 64)
        bits_rows_avx2(8, all, b, r, tables, out);
    for (; r < b.last; r += 8) {
        const int left = b.last - r < 8 ? (int)(b.last - r) : 8;
        const __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane);
        bits_rows_avx2(1, lanes, b, r, tables, out);
    }
}

#endif
