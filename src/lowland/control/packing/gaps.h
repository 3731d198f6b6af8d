/* Lists of columns from gaps in Rice's code (gaps.py): read once, bit by bit. */

typedef struct {
    const uint8_t *bytes;
    int64_t length;
} Stream;

/* Eight bytes from a place on, zeros behind the end. */
INLINE uint64_t window(Stream s, int64_t byte)
{
    uint64_t word = 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (byte + 8 <= s.length) {
        memcpy(&word, s.bytes + byte, 8);
        return word;
    }
#endif
    for (int i = 0; i < 8 && byte + i < s.length; i++)
        word |= (uint64_t)s.bytes[byte + i] << 8 * i;
    return word;
}

INLINE int lowest_bit(uint64_t word)
{
#ifdef __GNUC__
    return __builtin_ctzll(word);
#else
    int bit = 0;
    for (; !(word & 1); word >>= 1)
        bit++;
    return bit;
#endif
}

/* Up to 32 bits from a place on. */
INLINE uint64_t number(Stream s, int64_t bit, int bits)
{
    return window(s, bit >> 3) >> (bit & 7) & (((uint64_t)1 << bits) - 1);
}

/* Fill `lists` (room for `capacity` columns) and `starts` (2 rows + 1). Returns how many columns
   were written, or -1 if the gaps lead beyond the matrix or there are more than `capacity`. */
static int64_t read_gaps(Stream quotients, Stream remainders, Stream signs, int k, int64_t rows,
                         int64_t columns, uint16_t *lists, int64_t capacity, int32_t *starts,
                         uint16_t *minus)
{
    int64_t n = 0, plus_end = 0, minus_count = 0, row = 0, column = -1, last = -1;
    starts[0] = 0;
    for (int64_t byte = 0; byte < quotients.length; byte += 8)
        for (uint64_t word = window(quotients, byte); word; word &= word - 1, n++) {
            const int64_t bit = 8 * byte + lowest_bit(word), quotient = bit - last - 1;
            if (n >= capacity || quotient > rows * columns >> k)
                return -1;
            last = bit;
            column += (quotient << k) + (int64_t)number(remainders, n * k, k) + 1;
            for (; column >= columns; column -= columns) { /* the row is complete */
                if (row + 1 >= rows)
                    return -1;
                memcpy(lists + plus_end, minus, minus_count * sizeof *minus);
                starts[2 * row + 1] = (int32_t)plus_end;
                plus_end += minus_count, minus_count = 0;
                starts[2 * ++row] = (int32_t)plus_end;
            }
            const int64_t positive = (int64_t)number(signs, n, 1); /* a branch would be a coin's */
            lists[plus_end] = minus[minus_count] = (uint16_t)column;
            plus_end += positive, minus_count += 1 - positive;
        }
    memcpy(lists + plus_end, minus, minus_count * sizeof *minus);
    for (; row < rows; row++, minus_count = 0) {
        starts[2 * row + 1] = (int32_t)plus_end;
        starts[2 * row + 2] = (int32_t)(plus_end += minus_count);
    }
    return n;
}
