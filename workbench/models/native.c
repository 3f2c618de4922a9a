/* The forward pass's hot operations for CPUs: bf16 weights and KV cache, float32 activations and sums.
 *
 * Why C at all: a decode step reads every weight once, so bf16 halves its time, but torch multiplies bf16 quickly only on CPUs with
 * bf16 units, and its attention cannot read keys through a block table without copying them.  Each bf16 is the upper half of a float32,
 * so two of them in a 32-bit lane become floats by one shift and one mask; vectors are the compiler's own (GCC, Clang: AVX2, AVX-512, NEON).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "native_pool.h"

#ifdef __AVX512F__
enum { LANES = 16, TILE = 12 };
#else
enum { LANES = 8, TILE = 6 };
#endif
enum { PANEL = 2 * LANES, L2_BYTES = 192 << 10, KEYS = 64, A = 8, SHARED = 4, AT_ONCE = 4 };

typedef float wide __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t wide_bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float vec __attribute__((vector_size(4 * A), aligned(4), may_alias));
typedef int32_t vec_int __attribute__((vector_size(4 * A), aligned(4), may_alias));
typedef uint32_t vec_bits __attribute__((vector_size(4 * A), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

int32_t wb_panel(void) { return PANEL; }

/* ---- projections: y[rows][outputs] = x[rows][inputs] * W^T * scale + bias ----------------------------------------------------
 * W is packed in panels of PANEL outputs.  As bf16 a panel has LANES words for each input, which hold output i in the low and output
 * i + LANES in the high half; as int8 it has PANEL bytes for each input, to be scaled by a float for each output.
 *
 * A tile keeps R x P panels of sums in registers: few rows take several panels at once, or their sums would wait for each other.  Every
 * sum adds its products one by one in the order of the inputs, so a row's result does not depend, not even in its last bit, on the rows
 * beside it: a token that is decoded alone, in a batch, in a prompt or as a draft to be verified gets the same logits. */
enum { BF16 = 2, INT8 = 1, MOST_PANELS = 4, AHEAD_BYTES = 2048 }; /* kinds of weights are the bytes of one */

INLINE wide from_bytes(const char *from) {
#if defined(__AVX512F__) /* GCC before 13 takes vectors of bytes apart one by one */
    return (wide)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
#elif defined(__AVX2__)
    return (wide)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
#else
    typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
    typedef int32_t ints __attribute__((vector_size(4 * LANES)));
    return __builtin_convertvector(__builtin_convertvector(*(const bytes *)from, ints), wide);
#endif
}

INLINE void load(const int KIND, const char *from, wide *low, wide *high) {
    if (KIND == BF16) {
        wide_bits both = *(const wide_bits *)from;
        *low = (wide)(both << 16), *high = (wide)(both & 0xffff0000u);
    } else {
        *low = from_bytes(from), *high = from_bytes(from + LANES);
    }
}

/* Add the products of input k. */
INLINE void add(const int KIND, const int R, const int P, wide sum[TILE][MOST_PANELS][2], const float *x, int64_t inputs, const char *w, int64_t k) {
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        wide low, high;
        load(KIND, w + (p * inputs + k) * (PANEL * KIND), &low, &high);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            float value = x[r * inputs + k];
            sum[r][p][0] += value * low;
            sum[r][p][1] += value * high;
        }
    }
}

INLINE void tile(const int KIND, const int R, const int P, const float *x, int64_t inputs, const char *w, const float *scale,
                 const float *bias, float *y, int64_t outputs, int64_t width) {
    wide sum[TILE][MOST_PANELS][2]; /* of fixed size, so that compilers keep the used part in registers */
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) sum[r][p][0] = sum[r][p][1] = (wide){0};
    for (int64_t k = 0; k < inputs; k++) {
        for (int p = 0; p < P; p++) /* the processor's own prefetching keeps up with few rows only */
            __builtin_prefetch(w + (p * inputs + k) * (PANEL * KIND) + AHEAD_BYTES);
        add(KIND, R, P, sum, x, inputs, w, k);
    }
    for (int r = 0; r < R; r++) {
        float out[MOST_PANELS * PANEL];
        for (int i = 0; i < 2 * P; i++) {
            wide total = sum[r][i / 2][i % 2];
            if (scale) total *= *(const wide *)(scale + i * LANES);
            if (bias) total += *(const wide *)(bias + i * LANES);
            *(wide *)(out + i * LANES) = total;
        }
        memcpy(y + r * outputs, out, width * sizeof(float));
    }
}

/* How many panels so many rows take at once. */
static int panels_of(int64_t rows) { return rows == 1 ? MOST_PANELS : rows == 2 ? 2 : 1; }

INLINE void rows_of_panels(const int KIND, const float *x, int64_t rows, int64_t panels, int64_t inputs, const char *w, const float *scale,
                           const float *bias, float *y, int64_t outputs, int64_t width) {
#define TILED(R, P) tile(KIND, R, P, x, inputs, w, scale, bias, y, outputs, width)
    switch (rows) {
    case 1: panels == MOST_PANELS ? TILED(1, MOST_PANELS) : TILED(1, 1); break;
    case 2: panels == 2 ? TILED(2, 2) : TILED(2, 1); break;
    case 3: TILED(3, 1); break;
    case 4: TILED(4, 1); break;
    case 5: TILED(5, 1); break;
    case 6: TILED(6, 1); break;
#if __AVX512F__
    case 7: TILED(7, 1); break;
    case 8: TILED(8, 1); break;
    case 9: TILED(9, 1); break;
    case 10: TILED(10, 1); break;
    case 11: TILED(11, 1); break;
    case 12: TILED(12, 1); break;
#endif
    }
#undef TILED
}

typedef struct {
    const uint16_t *weight;
    uint16_t *packed;
    int64_t first, outputs, inputs;
} Pack;

static void pack_panel(const void *job, int64_t piece) {
    const Pack *p = job;
    int64_t panel = p->first / PANEL + piece;
    for (int64_t lane = 0; lane < PANEL; lane++) {
        int64_t output = panel * PANEL + lane - p->first;
        if (output < 0 || output >= p->outputs) continue;
        uint16_t *to = p->packed + panel * PANEL * p->inputs + 2 * (lane % LANES) + lane / LANES;
        for (int64_t k = 0; k < p->inputs; k++) to[k * PANEL] = p->weight[output * p->inputs + k];
    }
}

/* Lay out one of the matrices that are fused into a projection: its outputs become those from `first` on. */
void wb_pack(const uint16_t *weight, uint16_t *packed, int64_t first, int64_t outputs, int64_t inputs, int32_t threads) {
    Pack job = {weight, packed, first, outputs, inputs};
    run_pieces(pack_panel, &job, (first + outputs + PANEL - 1) / PANEL - first / PANEL, threads);
}

typedef struct {
    const float *x, *scale, *bias;
    const char *packed;
    float *y;
    int64_t rows, inputs, outputs, height, panels;
} Linear;

/* Some panels, for all rows: they stay in the L2 cache while the rows pass. */
INLINE void some_panels(const int KIND, const Linear *l, int64_t piece) {
    int64_t first = piece * l->panels, all = (l->outputs + PANEL - 1) / PANEL, end = first + l->panels < all ? first + l->panels : all;
    for (int64_t row = 0; row < l->rows; row += l->height) {
        int64_t rows = l->rows - row < l->height ? l->rows - row : l->height, many = panels_of(rows), taken;
        for (int64_t panel = first; panel < end; panel += taken) {
            taken = end - panel < many ? 1 : many;
            int64_t at = panel * PANEL, width = l->outputs - at < taken * PANEL ? l->outputs - at : taken * PANEL;
            rows_of_panels(KIND, l->x + row * l->inputs, rows, taken, l->inputs, l->packed + at * l->inputs * KIND,
                           l->scale ? l->scale + at : 0, l->bias ? l->bias + at : 0, l->y + row * l->outputs + at, l->outputs, width);
        }
    }
}

static void some_bf16_panels(const void *job, int64_t piece) { some_panels(BF16, job, piece); }
static void some_int8_panels(const void *job, int64_t piece) { some_panels(INT8, job, piece); }

/* The weights are int8 if there are scales, else bf16; scales and bias are padded to whole panels. */
void wb_linear(const float *x, const void *packed, const float *scale, const float *bias, float *y, int64_t rows, int64_t inputs,
               int64_t outputs, int32_t threads) {
    if (!rows) return;
    int64_t panels = (outputs + PANEL - 1) / PANEL, fitting = L2_BYTES / (inputs * PANEL * (scale ? INT8 : BF16));
    int64_t fair = panels / (4 * threads), at_once = fitting < fair ? fitting : fair, tiles = (rows + TILE - 1) / TILE;
    at_once = at_once > MOST_PANELS ? at_once / MOST_PANELS * MOST_PANELS : at_once > 1 ? at_once : 1;
    Linear job = {x, scale, bias, packed, y, rows, inputs, outputs, (rows + tiles - 1) / tiles, at_once}; /* tiles of even height */
    run_pieces(scale ? some_int8_panels : some_bf16_panels, &job, (panels + at_once - 1) / at_once, threads);
}

/* ---- pointwise ------------------------------------------------------------------------------------------------------------------ */
INLINE vec where(vec_int mask, vec yes, vec no) { return (vec)((mask & (vec_int)yes) | (~mask & (vec_int)no)); }

INLINE vec exp_of(vec x) { /* 2^n * e^r with |r| <= ln(2) / 2; relative error below 3e-7; below -87 it is as good as 0 */
    x = where(x < -87.0f, (vec){0} - 87.0f, x);
    x = where(x > 88.0f, (vec){0} + 88.0f, x);
    vec scaled = x * 1.44269504f, rounded = (scaled + 12582912.0f) - 12582912.0f;
    vec r = x - rounded * 0.693359375f + rounded * 2.12194440e-4f;
    vec p = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666418e-2f + r * (8.3333769e-3f + r * 1.3981999e-3f)))));
    vec_int power = (__builtin_convertvector(rounded, vec_int) + 127) << 23;
    return p * (vec)power;
}

typedef float half_vec __attribute__((vector_size(2 * A), aligned(4), may_alias));

INLINE float sum_of(vec v) {
    half_vec folded = *(half_vec *)&v + *((half_vec *)&v + 1);
    return (folded[0] + folded[2]) + (folded[1] + folded[3]);
}

INLINE uint16_t to_bf16(float value) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE float rms_scale(const float *x, int64_t size, float eps) {
    vec squares = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + A <= size; i += A) squares += *(const vec *)(x + i) * *(const vec *)(x + i);
    for (; i < size; i++) rest += x[i] * x[i];
    return 1.0f / sqrtf((sum_of(squares) + rest) / size + eps);
}

INLINE void normalise(const float *x, const float *weight, float *y, int64_t size, float eps) {
    float scale = rms_scale(x, size, eps);
    for (int64_t i = 0; i < size; i++) y[i] = x[i] * scale * weight[i];
}

typedef struct {
    float *x, *y;
    const float *other;
    const float *weight;
    int64_t rows, size;
    float eps;
} Rows;

INLINE int64_t end_of(const Rows *r, int64_t piece) { return (piece + 1) * AT_ONCE < r->rows ? (piece + 1) * AT_ONCE : r->rows; }

static void some_norms(const void *job, int64_t piece) {
    const Rows *r = job;
    for (int64_t row = piece * AT_ONCE; row < end_of(r, piece); row++) {
        float *x = r->x + row * r->size, *y = r->y + row * r->size;
        for (int64_t i = 0; r->other && i < r->size; i++) x[i] += r->other[row * r->size + i];
        normalise(x, r->weight, y, r->size, r->eps);
    }
}

static void some_gates(const void *job, int64_t piece) {
    const Rows *r = job;
    for (int64_t row = piece * AT_ONCE; row < end_of(r, piece); row++) {
        const float *gate = r->other + row * 2 * r->size, *up = gate + r->size;
        for (int64_t i = 0; i < r->size; i += A) { /* size is a multiple of A */
            vec g = *(const vec *)(gate + i);
            *(vec *)(r->y + row * r->size + i) = g / (1.0f + exp_of(-g)) * *(const vec *)(up + i);
        }
    }
}

void wb_add_rms_norm(float *x, const float *delta, const float *weight, float *y, int64_t rows, int64_t size, float eps, int32_t threads) {
    run_pieces(some_norms, &(Rows){x, y, delta, weight, rows, size, eps}, (rows + AT_ONCE - 1) / AT_ONCE, threads);
}

void wb_silu_mul(const float *gate_up, float *y, int64_t rows, int64_t size, int32_t threads) {
    run_pieces(some_gates, &(Rows){0, y, gate_up, 0, rows, size, 0}, (rows + AT_ONCE - 1) / AT_ONCE, threads);
}

/* ---- attention ------------------------------------------------------------------------------------------------------------------ */
typedef struct {
    int64_t heads, kv_heads, dim, block_size, tokens, side; /* side: values from a layer's keys to its values */
    const int64_t *slots, *positions, *table_begins, *tables;  /* per token, but for tables: the blocks of all rows */
    const float *cosines, *sines;                              /* [tokens][dim / 2] */
    float eps;
    int32_t threads;
} Step;

INLINE void normalise_and_rotate(float *head, const float *norm, const float *cosines, const float *sines, int64_t dim, float eps) {
    if (norm) {
        float scale = rms_scale(head, dim, eps);
        for (int64_t i = 0; i < dim; i++) head[i] *= scale * norm[i];
    }
    if (!cosines) return;
    for (int64_t i = 0; i < dim / 2; i++) {
        float first = head[i], second = head[i + dim / 2];
        head[i] = first * cosines[i] - second * sines[i];
        head[i + dim / 2] = second * cosines[i] + first * sines[i];
    }
}

/* Keys and values of a token, [2][kv_heads][dim], into its slot. */
static void store_entry(float *keys, const float *k_norm, const float *cosines, const float *sines, uint16_t *kv, const Step *s, int64_t t) {
    int64_t width = s->kv_heads * s->dim;
    for (int64_t h = 0; h < s->kv_heads; h++) normalise_and_rotate(keys + h * s->dim, k_norm, cosines, sines, s->dim, s->eps);
    uint16_t *slot = kv + s->slots[t] * width;
    for (int64_t i = 0; i < width; i++) slot[i] = to_bf16(keys[i]), slot[s->side + i] = to_bf16(keys[width + i]);
}

static void store_token(float *qkv, const float *q_norm, const float *k_norm, int rotate, uint16_t *kv, const Step *s, int64_t t) {
    const float *cosines = rotate ? s->cosines + t * (s->dim / 2) : 0, *sines = s->sines + t * (s->dim / 2);
    for (int64_t h = 0; h < s->heads; h++) normalise_and_rotate(qkv + h * s->dim, q_norm, cosines, sines, s->dim, s->eps);
    store_entry(qkv + s->heads * s->dim, k_norm, cosines, sines, kv, s, t);
}

/* The `shared` query heads of one token that read one KV head: online softmax over KEYS keys at a time. */
INLINE void attend_heads(const int shared, const float *q, const uint16_t *kv, float *out, const Step *s, int64_t t, int64_t kv_head) {
    int64_t dim = s->dim, count = s->positions[t] + 1, width = s->kv_heads * dim;
    const int64_t *table = s->tables + s->table_begins[t];
    float even[SHARED][dim / 2], odd[SHARED][dim / 2], scores[SHARED][KEYS], best[SHARED], total[SHARED];
    float low_out[SHARED][dim / 2], high_out[SHARED][dim / 2];
    const uint16_t *rows[KEYS];
    float scale = 1.0f / sqrtf(dim);
    for (int g = 0; g < shared; g++) {
        best[g] = -INFINITY, total[g] = 0;
        for (int64_t i = 0; i < dim / 2; i++) {
            even[g][i] = q[g * dim + 2 * i] * scale, odd[g][i] = q[g * dim + 2 * i + 1] * scale;
            low_out[g][i] = high_out[g][i] = 0;
        }
    }
    for (int64_t from = 0; from < count; from += KEYS) {
        int64_t n = count - from < KEYS ? count - from : KEYS, padded = (n + A - 1) / A * A;
        for (int64_t j = 0, block = from / s->block_size, offset = from % s->block_size; j < n; j++) {
            rows[j] = kv + (table[block] * s->block_size + offset) * width + kv_head * dim;
            if (++offset == s->block_size) offset = 0, block++;
        }
        for (int64_t j = 0; j < n; j++) {
            vec sum[SHARED];
            for (int g = 0; g < shared; g++) sum[g] = (vec){0};
            for (int64_t i = 0; i < dim / 2; i += A) {
                vec_bits both = *(const vec_bits *)((const uint32_t *)rows[j] + i);
                vec low = (vec)(both << 16), high = (vec)(both & 0xffff0000u);
                for (int g = 0; g < shared; g++) sum[g] += low * *(vec *)(even[g] + i) + high * *(vec *)(odd[g] + i);
            }
            for (int g = 0; g < shared; g++) scores[g][j] = sum_of(sum[g]);
        }
        for (int g = 0; g < shared; g++) {
            float top = best[g];
            for (int64_t j = 0; j < n; j++) top = scores[g][j] > top ? scores[g][j] : top;
            for (int64_t j = n; j < padded; j++) scores[g][j] = -INFINITY;
            float fade = expf(best[g] - top);
            vec sum = {0};
            for (int64_t j = 0; j < padded; j += A) sum += *(vec *)(scores[g] + j) = exp_of(*(vec *)(scores[g] + j) - top);
            for (int64_t i = 0; i < dim / 2; i++) low_out[g][i] *= fade, high_out[g][i] *= fade;
            best[g] = top, total[g] = total[g] * fade + sum_of(sum);
        }
        for (int64_t i = 0; i < dim / 2; i += A) {
            vec low_sum[SHARED], high_sum[SHARED];
            for (int g = 0; g < shared; g++) low_sum[g] = *(vec *)(low_out[g] + i), high_sum[g] = *(vec *)(high_out[g] + i);
            for (int64_t j = 0; j < n; j++) {
                vec_bits both = *(const vec_bits *)((const uint32_t *)(rows[j] + s->side) + i);
                vec low = (vec)(both << 16), high = (vec)(both & 0xffff0000u);
                for (int g = 0; g < shared; g++) low_sum[g] += scores[g][j] * low, high_sum[g] += scores[g][j] * high;
            }
            for (int g = 0; g < shared; g++) *(vec *)(low_out[g] + i) = low_sum[g], *(vec *)(high_out[g] + i) = high_sum[g];
        }
    }
    for (int g = 0; g < shared; g++) {
        float share = 1.0f / total[g];
        for (int64_t i = 0; i < dim / 2; i++) out[g * dim + 2 * i] = low_out[g][i] * share, out[g * dim + 2 * i + 1] = high_out[g][i] * share;
    }
}

static void attend(const float *q, const uint16_t *kv, float *out, const Step *s, int64_t t, int64_t kv_head) {
    int64_t shared = s->heads / s->kv_heads, first = kv_head * shared;
    for (int64_t done = 0; done < shared;) {
        const float *from = q + (first + done) * s->dim;
        float *to = out + (first + done) * s->dim;
        switch (shared - done) {
        case 1: attend_heads(1, from, kv, to, s, t, kv_head), done += 1; break;
        case 2: attend_heads(2, from, kv, to, s, t, kv_head), done += 2; break;
        case 3: attend_heads(3, from, kv, to, s, t, kv_head), done += 3; break;
        default: attend_heads(4, from, kv, to, s, t, kv_head), done += 4;
        }
    }
}

typedef struct {
    float *qkv, *out;
    const float *q_norm, *k_norm;
    uint16_t *kv;
    int rotate;
    const Step *step;
} Attention;

static void some_stores(const void *job, int64_t piece) {
    const Attention *a = job;
    const Step *s = a->step;
    for (int64_t t = piece * AT_ONCE; t < (piece + 1) * AT_ONCE && t < s->tokens; t++)
        store_token(a->qkv + t * (s->heads + 2 * s->kv_heads) * s->dim, a->q_norm, a->k_norm, a->rotate, a->kv, s, t);
}

/* One token and KV head; pieces go last to first, so of a chunk the tokens with most keys come first. */
static void one_head(const void *job, int64_t piece) {
    const Attention *a = job;
    const Step *s = a->step;
    int64_t t = piece / s->kv_heads;
    attend(a->qkv + t * (s->heads + 2 * s->kv_heads) * s->dim, a->kv, a->out + t * s->heads * s->dim, s, t, piece % s->kv_heads);
}

void wb_attend(float *qkv, const float *q_norm, const float *k_norm, int32_t rotate, uint16_t *kv, float *out, const Step *s) {
    Attention job = {qkv, out, q_norm, k_norm, kv, rotate, s};
    run_pieces(some_stores, &job, (s->tokens + AT_ONCE - 1) / AT_ONCE, s->threads);
    run_pieces(one_head, &job, s->tokens * s->kv_heads, s->threads);
}

#include "native_draft.h"
