/* Products of packed matrices with float32 activations, and what Python needs to call them.
 *
 * A function takes integers only: the instruction set, the number of threads, sizes, addresses.
 * kernels.py has checked them. Nothing here holds state, and the interpreter is free meanwhile.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86
#include <immintrin.h>
#define TARGET_2 __attribute__((target("avx2,bmi2,fma")))
#define TARGET_512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2,fma")))
#endif
#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
#else
#define INLINE static inline
#define ALIGNED
#endif

enum { SCALAR, AVX2, AVX512 };

#include "gaps.h"
#include "vector.h"

/* A product of many positions. starts is NULL where the weight is bits. Groups share out the rows evenly;
   each reads x from its own place on. */
typedef struct {
    const uint32_t *plus, *minus;
    const uint16_t *lists;
    const int32_t *starts;
    const int64_t *offsets;
    int64_t rows, columns, groups, group_stride, positions, out_stride;
    const float *x;
    float *out;
} Columns;

#ifdef __GNUC__ /* four lanes: what every x86-64 and every ARM processor of 64 bits has */
typedef float Four __attribute__((vector_size(16)));
typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));
#define VEC Four
#define LANES 4
#define LOAD(p) ((Four) * (const LooseFour *)(p))
#define STORE(p, v) (*(LooseFour *)(p) = (v))
#define ZERO ((Four){0, 0, 0, 0})
#else
#define VEC float
#define LANES 1
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define ZERO 0.0f
#endif
#define ADD(a, b) ((a) + (b))
#define SUB(a, b) ((a) - (b))
#define TARGET
#define NAME(f) f##_scalar
#include "columns.h"

#ifdef X86
#define VEC __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define ADD(a, b) _mm256_add_ps(a, b)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define ZERO _mm256_setzero_ps()
#define TARGET TARGET_2
#define NAME(f) f##_avx2
#include "columns.h"

#define VEC __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define ADD(a, b) _mm512_add_ps(a, b)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define ZERO _mm512_setzero_ps()
#define TARGET TARGET_512
#define NAME(f) f##_avx512
#include "columns.h"
#endif

#define POINTER(type, value) ((type *)(intptr_t)(value))

/* Rows first <= r < last of a product with each vector of a batch. */
static void bits_part(int level, const int64_t *a, int64_t first, int64_t last)
{
    const int64_t rows = a[4], columns = a[5], batch = a[7];
    for (int64_t n = 0; n < batch; n++) {
        float *out = POINTER(float, a[8]) + n * rows;
        memset(out + first, 0, (last - first) * sizeof(float));
        for (int64_t w = 0; 32 * w < columns; w += BLOCK_WORDS) {
            const int64_t left = columns - 32 * w;
            const int64_t some = left < BLOCK_COLUMNS ? left : BLOCK_COLUMNS;
            const uint32_t *plus = POINTER(uint32_t, a[2]), *minus = POINTER(uint32_t, a[3]);
            const float *x = POINTER(float, a[6]) + n * columns + 32 * w;
            Bits b = {plus + w * rows, minus ? minus + w * rows : NULL, (some + 31) / 32, rows,
                      first, last};
            float padded[BLOCK_COLUMNS];
            if (some % 32) {
                memset(padded + some / 32 * 32, 0, 32 * sizeof(float));
                memcpy(padded, x, some * sizeof(float));
                x = padded;
            }
#ifdef X86
            if (level == AVX512)
                bits_avx512(b, x, out);
            else if (level == AVX2)
                bits_avx2(b, x, out);
            else
#endif
                bits_scalar(b, x, out);
        }
    }
}

static void lists_part(int level, const int64_t *a, int64_t first, int64_t last)
{
    const int64_t rows = a[4], columns = a[5], batch = a[7];
    for (int64_t n = 0; n < batch; n++) {
        const uint16_t *lists = POINTER(uint16_t, a[2]);
        const int32_t *starts = POINTER(int32_t, a[3]);
        const float *x = POINTER(float, a[6]) + n * columns;
        float *out = POINTER(float, a[8]) + n * rows;
#ifdef X86
        if (level == AVX512)
            lists_avx512(lists, starts, first, last, x, out);
        else
#endif
            lists_scalar(lists, starts, first, last, x, out);
    }
}

/* A second thread costs a few microseconds: each gets `grain` units of work at least. */
static int64_t useful(int64_t threads, int64_t work, int64_t grain)
{
    const int64_t most = 1 + work / grain;
    return threads < most ? threads : most;
}

/* level threads plus minus rows columns x batch out */
static int64_t bits_vector(const int64_t *a)
{
    const int64_t rows = a[4], threads = useful(a[1], rows * a[5] * a[7], 1 << 19);
    const int64_t share = (rows + 64 * threads - 1) / (64 * threads) * 64;
    if (threads == 1)
        return bits_part((int)a[0], a, 0, rows), 0;
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t first = 0; first < rows; first += share)
        bits_part((int)a[0], a, first, first + share < rows ? first + share : rows);
    return 0;
}

/* level threads lists starts rows columns x batch out */
static int64_t lists_vector(const int64_t *a)
{
    const int64_t rows = a[4], nonzero = POINTER(int32_t, a[3])[2 * rows];
    const int64_t threads = useful(a[1], nonzero * a[7], 1 << 14);
    const int64_t share = (rows + threads - 1) / threads;
    if (threads == 1)
        return lists_part((int)a[0], a, 0, rows), 0;
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t first = 0; first < rows; first += share)
        lists_part((int)a[0], a, first, first + share < rows ? first + share : rows);
    return 0;
}

static void one_tile(int level, const Columns *c, int64_t first, int64_t last, int64_t p)
{
    const float *x = c->x + first / (c->rows / c->groups) * c->group_stride;
#ifdef X86
    if (level == AVX512)
        tile_avx512(c, first, last, x, p);
    else if (level == AVX2)
        tile_avx2(c, first, last, x, p);
    else
#endif
        tile_scalar(c, first, last, x, p);
}

/* Tiles of positions are shared among the threads; the rows are, where the tiles are too few. */
static void many(int level, int threads, const Columns *c)
{
    threads = (int)useful(threads, c->rows * c->columns * c->positions, 1 << 22);
    const int64_t tile = level == AVX512 ? 64 : level == AVX2 ? 32 : 16;
    const int64_t tiles = (c->positions + tile - 1) / tile, rows = c->rows / c->groups;
    const int64_t parts = tiles * c->groups >= threads ? 1 : threads < rows ? threads : rows;
    const int64_t share = (rows + parts - 1) / parts, tasks = tiles * c->groups * parts;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t p = task / (c->groups * parts) * tile;
        const int64_t begin = task / parts % c->groups * rows, first = task % parts * share;
        const int64_t last = first + share < rows ? first + share : rows;
        if (first < last)
            one_tile(level, c, begin + first, begin + last, p);
    }
}

/* level threads plus minus rows columns groups group_stride x offsets positions out out_stride */
static int64_t bits_columns(const int64_t *a)
{
    Columns c = {.plus = POINTER(uint32_t, a[2]), .minus = POINTER(uint32_t, a[3]), .rows = a[4],
                 .columns = a[5], .groups = a[6], .group_stride = a[7], .x = POINTER(float, a[8]),
                 .offsets = POINTER(int64_t, a[9]), .positions = a[10],
                 .out = POINTER(float, a[11]), .out_stride = a[12]};
    many((int)a[0], (int)a[1], &c);
    return 0;
}

/* level threads lists starts rows columns groups group_stride x offsets positions out out_stride */
static int64_t lists_columns(const int64_t *a)
{
    Columns c = {.lists = POINTER(uint16_t, a[2]), .starts = POINTER(int32_t, a[3]), .rows = a[4],
                 .columns = a[5], .groups = a[6], .group_stride = a[7], .x = POINTER(float, a[8]),
                 .offsets = POINTER(int64_t, a[9]), .positions = a[10],
                 .out = POINTER(float, a[11]), .out_stride = a[12]};
    many((int)a[0], (int)a[1], &c);
    return 0;
}

/* from rows columns from_stride to to_stride: the transpose, in blocks that share cache lines */
static int64_t transpose(const int64_t *a)
{
    const int64_t rows = a[1], columns = a[2], from_stride = a[3], to_stride = a[5];
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16) {
            const float *from = POINTER(float, a[0]) + i * from_stride + j;
            float *to = POINTER(float, a[4]) + j * to_stride + i;
            const int64_t height = rows - i < 16 ? rows - i : 16;
            const int64_t width = columns - j < 16 ? columns - j : 16;
            if (height == 16 && width == 16)
                for (int m = 0; m < 16; m++)
                    for (int n = 0; n < 16; n++)
                        to[m * to_stride + n] = from[n * from_stride + m];
            else
                for (int m = 0; m < width; m++)
                    for (int n = 0; n < height; n++)
                        to[m * to_stride + n] = from[n * from_stride + m];
        }
    return 0;
}

/* quotients bytes remainders bytes signs bytes k rows columns lists capacity starts; the number of
   nonzero weights, or -1 */
static int64_t expand_gaps(const int64_t *a)
{
    Stream quotients = {POINTER(uint8_t, a[0]), a[1]}, remainders = {POINTER(uint8_t, a[2]), a[3]};
    Stream signs = {POINTER(uint8_t, a[4]), a[5]};
    uint16_t minus[1 << 16]; /* of one row; uint16 names no more columns */
    return read_gaps(quotients, remainders, signs, (int)a[6], a[7], a[8], POINTER(uint16_t, a[9]),
                     a[10], POINTER(int32_t, a[11]), minus);
}

static PyObject *call(int64_t (*work)(const int64_t *), PyObject *const *args, Py_ssize_t given,
                      Py_ssize_t wanted)
{
    int64_t values[16], result;
    if (given != wanted)
        return PyErr_Format(PyExc_TypeError, "%zd integers are needed; got %zd.", wanted, given);
    for (Py_ssize_t i = 0; i < given; i++) {
        values[i] = PyLong_AsLongLong(args[i]);
        if (values[i] == -1 && PyErr_Occurred())
            return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    result = work(values);
    Py_END_ALLOW_THREADS;
    return PyLong_FromLongLong(result);
}

#define EXPOSE(name, wanted)                                                                      \
    static PyObject *py_##name(PyObject *self, PyObject *const *args, Py_ssize_t given)           \
    {                                                                                             \
        (void)self;                                                                               \
        return call(name, args, given, wanted);                                                   \
    }
EXPOSE(bits_vector, 9)
EXPOSE(lists_vector, 9)
EXPOSE(bits_columns, 13)
EXPOSE(lists_columns, 13)
EXPOSE(transpose, 6)
EXPOSE(expand_gaps, 12)

static PyObject *py_best(PyObject *self, PyObject *none)
{
    (void)self, (void)none;
    int level = SCALAR;
#ifdef X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        level = AVX2;
    if (level == AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        level = AVX512;
#endif
    return PyLong_FromLong(level);
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    METHOD(bits_vector),
    METHOD(lists_vector),
    METHOD(bits_columns),
    METHOD(lists_columns),
    METHOD(transpose),
    METHOD(expand_gaps),
    {"best", py_best, METH_NOARGS, "The widest instruction set of this processor."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }
