/* Drafting with an EAGLE head in one call: it reads what the target has computed, then drafts token after token.  The same operations as
 * those of `EagleHead`, one after the other, on int8 matrices.
 *
 * A draft takes half a millisecond of reading weights, and as long again when each of its some twenty operations is called from Python, whose
 * own code and data the weights have driven out of the caches meanwhile.
 */
typedef struct {
    const void *packed;
    const float *scale;
    int64_t inputs, outputs;
} Matrix;

static void apply(const Matrix *m, const float *x, float *y, int64_t rows, int32_t threads) {
    wb_linear(x, m->packed, m->scale, 0, y, rows, m->inputs, m->outputs, threads);
}

/* ---- the token that follows ------------------------------------------------------------------------------------------------------
 * `screen` scores every id roughly, from a projection of the hidden state if there is one; the best CANDIDATES are then scored with the
 * target's own rows (the idea is that of SVD-softmax, Shim et al., NIPS 2017). */
enum { CANDIDATES = 128, GROUP = 32, MOST_SCORED = CANDIDATES * GROUP };

typedef struct {
    Matrix project, screen;
    const uint16_t *embedding; /* [vocabulary][size], bf16 */
    const int64_t *ids;        /* of the screen's outputs */
    int64_t size;
} Vocabulary;

static int64_t groups_of(const Vocabulary *v) { return (v->screen.outputs + GROUP - 1) / GROUP; }

/* How a row's token is drawn; at temperature 0 the likeliest is taken.  `point` in [0, 1) falls on one of the candidates, which lie end to
 * end: two distributions that are nearly equal are so asked for the same token by the same point. */
typedef struct {
    double temperature, min_p, top_k, top_p; /* top_k 0: all */
} Manner;

typedef struct {
    const Vocabulary *vocabulary;
    const float *x, *scores;
    const Manner *manners; /* null: the likeliest for every row */
    const double *points;
    float *best, *chances; /* chances: the probability of what is chosen, at temperature 1 */
    int64_t *ids;
} Choice;

static float largest_but(float *values, int64_t count, int64_t rank) { /* Hoare's selection; changes the order of the values */
    int64_t low = 0, high = count - 1;
    while (low < high) {
        float pivot = values[(low + high) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i <= j) {
                float swapped = values[i];
                values[i++] = values[j], values[j--] = swapped;
            }
        }
        if (rank <= j) high = j;
        else if (rank >= i) low = i;
        else break;
    }
    return values[rank];
}

typedef uint16_t halves __attribute__((vector_size(2 * A), aligned(2), may_alias));

static float exact_score(const Vocabulary *v, const float *x, int64_t id) {
    const uint16_t *row = v->embedding + id * v->size;
    vec even = {0}, odd = {0};
    for (int64_t i = 0; i < v->size; i += 2 * A) { /* size is a multiple of 2 A */
        even += (vec)(__builtin_convertvector(*(const halves *)(row + i), vec_bits) << 16) * *(const vec *)(x + i);
        odd += (vec)(__builtin_convertvector(*(const halves *)(row + i + A), vec_bits) << 16) * *(const vec *)(x + i + A);
    }
    return sum_of(even + odd);
}

static int descending(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a < b) - (a > b);
}

/* The weight below which `top_k` and then `top_p` drop a candidate. */
static float cut_of(const float *weights, int64_t count, const Manner *manner) {
    float sorted[MOST_SCORED];
    memcpy(sorted, weights, count * sizeof(float));
    qsort(sorted, count, sizeof(float), descending);
    double total = 0, before = 0;
    int64_t kept = manner->top_k > 0 && manner->top_k < count ? (int64_t)manner->top_k : count, last = 0;
    if (manner->top_p >= 1) return sorted[kept - 1];
    for (int64_t i = 0; i < kept; i++) total += sorted[i];
    for (int64_t i = 0; i < kept && before < manner->top_p * total; i++) before += sorted[i], last = i;
    return sorted[last];
}

/* Which of some scores, the largest of which is `most`, the point falls on. */
static int64_t drawn(const float *scores, int64_t count, float most, const Manner *manner, double point) {
    float weights[MOST_SCORED], cut = 0;
    double total = 0, end = 0;
    for (int64_t i = 0; i < count; i++) {
        float weight = expf((float)((scores[i] - most) / manner->temperature));
        weights[i] = weight >= manner->min_p ? weight : 0; /* nor is it kept where it is no number */
    }
    if ((manner->top_k > 0 && manner->top_k < count) || manner->top_p < 1) cut = cut_of(weights, count, manner);
    for (int64_t i = 0; i < count; i++) total += weights[i] >= cut ? weights[i] : 0;
    for (int64_t i = 0; i < count; i++) {
        end += weights[i] >= cut ? weights[i] : 0;
        if (point * total < end) return i;
    }
    return -1;
}

/* The probability of the candidate at place `chosen`, at temperature 1; 0 where scores are no numbers. */
static float share_of(const float *scores, const int32_t *places, int64_t count, float most, int64_t chosen) {
    float total = 0, of_chosen = 0;
    for (int64_t i = 0; i < count; i++) {
        float weight = expf(scores[i] - most);
        total += weight;
        if (places[i] == chosen) of_chosen = weight;
    }
    return total > 0 ? of_chosen / total : 0;
}

/* The id of one row.  A group's best score bounds those of its members, so the CANDIDATES-th best group tells who is a candidate. */
static void choose(const void *job, int64_t row) {
    const Choice *c = job;
    const Vocabulary *v = c->vocabulary;
    int64_t count = v->screen.outputs, groups = groups_of(v), candidates = 0, best = 0;
    float exact[MOST_SCORED];
    int32_t places[MOST_SCORED];
    const float *x = c->x + row * v->size, *scores = c->scores + row * count;
    float *of_group = c->best + row * 2 * groups, *sorted = of_group + groups, least = -INFINITY, most = -INFINITY;
    for (int64_t group = 0; group < groups; group++) {
        int64_t end = (group + 1) * GROUP < count ? (group + 1) * GROUP : count;
        float top = -INFINITY;
        for (int64_t i = group * GROUP; i < end; i++) top = scores[i] > top ? scores[i] : top;
        of_group[group] = sorted[group] = top;
    }
    if (groups > CANDIDATES) least = largest_but(sorted, groups, CANDIDATES - 1);
    for (int64_t group = 0; group < groups; group++) {
        if (!(of_group[group] >= least)) continue;
        int64_t end = (group + 1) * GROUP < count ? (group + 1) * GROUP : count;
        for (int64_t i = group * GROUP; i < end; i++) {
            if (!(scores[i] >= least) || candidates == MOST_SCORED) continue; /* more only where rough scores are equal */
            float score = exact[candidates] = exact_score(v, x, v->ids[i]);
            places[candidates] = (int32_t)i;
            if (!candidates++ || score > most) most = score, best = i;
        }
    }
    if (candidates && c->manners && c->manners[row].temperature > 0) {
        int64_t found = drawn(exact, candidates, most, c->manners + row, c->points[row]);
        if (found >= 0) best = places[found];
    }
    c->chances[row] = share_of(exact, places, candidates, most, best);
    c->ids[row] = v->ids[best];
}

/* Floats that so many rows work on. */
int64_t wb_choose_room(const Vocabulary *v, int64_t rows) { return rows * (v->project.outputs + v->screen.outputs + 2 * groups_of(v)); }

/* An id for each row of `x`, [rows][size]: the one with the largest product with the target's row for it, or one drawn by these products;
 * and its chances. */
void wb_choose(const Vocabulary *v, const float *x, const Manner *manners, const double *points, float *chances, int64_t *ids, int64_t rows,
               float *room, int32_t threads) {
    float *projected = room, *scores = projected + rows * v->project.outputs, *best = scores + rows * v->screen.outputs;
    if (v->project.packed) apply(&v->project, x, projected, rows, threads);
    apply(&v->screen, v->project.packed ? projected : x, scores, rows, threads);
    run_pieces(choose, &(Choice){v, x, scores, manners, points, best, chances, ids}, rows, threads);
}

/* ---- the layer -------------------------------------------------------------------------------------------------------------------- */
typedef struct {
    Matrix fc, query, keys_values, output, gate_up, down;
    Vocabulary vocabulary;
    const float *tap_norms, *embed_norm, *feature_norm, *ffn_norm, *norm; /* tap_norms: [taps][size] */
    const float *inv_freq;                                                /* [dim / 2] */
    int64_t taps;
    float rope_scaling;
} DraftHead;

/* The entries of a pass: what goes into the cache, and which of them are scored. */
typedef struct {
    const int64_t *tokens; /* those that follow the entries */
    const int64_t *scored; /* null: all */
    int64_t num_scored;
    const Step *step;
    const Manner *manners; /* of those that are scored; null: the likeliest */
    const double *points;
    float *chances; /* of what is chosen */
} Pass;

/* A request: `count` entries from position `start` on are read, from row `tap_row` of every tap on, into the blocks at `table` of the tables;
 * then so many drafts are wanted. */
typedef struct {
    int64_t start, count, tap_row, table, drafts;
} Asked;

typedef struct {
    const DraftHead *head;
    const Pass *pass;
    const float *g, *const *taps;
    const int64_t *tap_rows;
    float *to, *keys_values, *query, *out;
    uint16_t *kv;
} Entries;

static void some_taps(const void *job, int64_t piece) {
    const Entries *e = job;
    int64_t size = e->head->vocabulary.size;
    for (int64_t row = piece * AT_ONCE; row < (piece + 1) * AT_ONCE && row < e->pass->step->tokens; row++)
        for (int64_t tap = 0; tap < e->head->taps; tap++)
            normalise(e->taps[tap] + e->tap_rows[row] * size, e->head->tap_norms + tap * size, e->to + (row * e->head->taps + tap) * size, size,
                      e->pass->step->eps);
}

static void some_inputs(const void *job, int64_t piece) { /* an embedding and a feature, each normalised, side by side */
    const Entries *e = job;
    int64_t size = e->head->vocabulary.size;
    for (int64_t row = piece * AT_ONCE; row < (piece + 1) * AT_ONCE && row < e->pass->step->tokens; row++) {
        const uint16_t *embedded = e->head->vocabulary.embedding + e->pass->tokens[row] * size;
        float *to = e->to + row * 2 * size;
        for (int64_t i = 0; i < size; i++) {
            uint32_t bits = (uint32_t)embedded[i] << 16;
            memcpy(to + i, &bits, 4);
        }
        normalise(to, e->head->embed_norm, to, size, e->pass->step->eps);
        normalise(e->g + row * size, e->head->feature_norm, to + size, size, e->pass->step->eps);
    }
}

static void some_entries(const void *job, int64_t piece) {
    const Entries *e = job;
    const Step *s = e->pass->step;
    for (int64_t t = piece * AT_ONCE; t < (piece + 1) * AT_ONCE && t < s->tokens; t++)
        store_entry(e->keys_values + t * 2 * s->kv_heads * s->dim, 0, s->cosines + t * (s->dim / 2), s->sines + t * (s->dim / 2), e->kv, s, t);
}

static void one_query(const void *job, int64_t piece) {
    const Entries *e = job;
    const Step *s = e->pass->step;
    int64_t row = piece / s->kv_heads, kv_head = piece % s->kv_heads, t = e->pass->scored ? e->pass->scored[row] : row, shared = s->heads / s->kv_heads;
    float *q = e->query + row * s->heads * s->dim;
    for (int64_t h = kv_head * shared; h < (kv_head + 1) * shared; h++)
        normalise_and_rotate(q + h * s->dim, 0, s->cosines + t * (s->dim / 2), s->sines + t * (s->dim / 2), s->dim, s->eps);
    attend(q, e->kv, e->out + row * s->heads * s->dim, s, t, kv_head);
}

/* Floats that an entry, and one that is scored, work on. */
static int64_t room_of_entry(const DraftHead *h) { return 2 * h->vocabulary.size + h->keys_values.outputs; }
static int64_t room_of_scored(const DraftHead *h) {
    int64_t size = h->vocabulary.size;
    return 4 * size + h->query.outputs + h->output.inputs + h->gate_up.outputs + h->down.inputs;
}

/* Entries on top of `g`; of those that are scored `hidden`, which the next pass goes on from, and the `next` tokens.  `g` may be `hidden`. */
static void pass_over(const DraftHead *h, const Pass *p, const float *g, float *hidden, int64_t *next, uint16_t *kv, float *room) {
    const Step *s = p->step;
    int64_t rows = s->tokens, count = p->num_scored, size = h->vocabulary.size;
    float *both = room, *keys_values = both + rows * 2 * size, *scored = keys_values + rows * h->keys_values.outputs;
    float *query = scored + count * 2 * size, *attended = query + count * h->query.outputs, *delta = attended + count * h->output.inputs;
    float *normed = delta + count * size, *gates = normed + count * size, *gated = gates + count * h->gate_up.outputs;
    float *rest = gated + count * h->down.inputs;
    Entries e = {.head = h, .pass = p, .g = g, .to = both, .keys_values = keys_values, .query = query, .out = attended, .kv = kv};
    run_pieces(some_inputs, &e, (rows + AT_ONCE - 1) / AT_ONCE, s->threads);
    apply(&h->keys_values, both, keys_values, rows, s->threads);
    run_pieces(some_entries, &e, (rows + AT_ONCE - 1) / AT_ONCE, s->threads);
    if (!count) return;
    for (int64_t row = 0; row < count; row++) {
        int64_t from = p->scored ? p->scored[row] : row;
        memcpy(scored + row * 2 * size, both + from * 2 * size, 2 * size * sizeof(float));
        if (hidden != g) memcpy(hidden + row * size, g + from * size, size * sizeof(float));
    }
    apply(&h->query, scored, query, count, s->threads);
    run_pieces(one_query, &e, count * s->kv_heads, s->threads);
    apply(&h->output, attended, delta, count, s->threads);
    wb_add_rms_norm(hidden, delta, h->ffn_norm, normed, count, size, s->eps, s->threads);
    apply(&h->gate_up, normed, gates, count, s->threads);
    wb_silu_mul(gates, gated, count, h->down.inputs, s->threads);
    apply(&h->down, gated, delta, count, s->threads);
    wb_add_rms_norm(hidden, delta, h->norm, normed, count, size, s->eps, s->threads);
    wb_choose(&h->vocabulary, normed, p->manners, p->points, p->chances, next, count, rest, s->threads);
}

/* Where entries stand: one after the other in memory, as a `Step` wants it. */
typedef struct {
    int64_t *slots, *positions, *tables;
    float *cosines, *sines;
    const DraftHead *head;
    int64_t count, half;
} Places;

static void some_angles(const void *job, int64_t piece) {
    const Places *p = job;
    for (int64_t t = piece * AT_ONCE; t < (piece + 1) * AT_ONCE && t < p->count; t++)
        for (int64_t i = 0; i < p->half; i++) {
            float angle = p->positions[t] * p->head->inv_freq[i];
            p->cosines[t * p->half + i] = cosf(angle) * p->head->rope_scaling, p->sines[t * p->half + i] = sinf(angle) * p->head->rope_scaling;
        }
}

static void place(Places *p, const Asked *asked, int64_t position, const int64_t *tables, int64_t block_size) {
    p->positions[p->count] = position, p->tables[p->count] = asked->table;
    p->slots[p->count++] = tables[asked->table + position / block_size] * block_size + position % block_size;
}

static Step step_of(const Places *p, const int64_t *tables, const Step *shape) {
    Step s = *shape;
    run_pieces(some_angles, p, (p->count + AT_ONCE - 1) / AT_ONCE, s.threads);
    s.tokens = p->count, s.slots = p->slots, s.positions = p->positions, s.table_begins = p->tables, s.tables = tables;
    s.cosines = p->cosines, s.sines = p->sines;
    return s;
}

/* Floats that so many entries of so many requests work on, of which `rows` want drafts. */
int64_t wb_draft_room(const DraftHead *h, int64_t entries, int64_t requests, int64_t rows, int64_t dim) {
    int64_t numbers = 2 * (4 * entries + requests + rows), angles = entries * dim, size = h->vocabulary.size; /* a number takes two floats */
    int64_t features = (rows + entries * (1 + h->taps)) * size, passes = entries * room_of_entry(h) + rows * room_of_scored(h);
    return numbers + angles + features + passes + 2 * rows + wb_choose_room(&h->vocabulary, rows);
}

/* Read what is asked, then draft for the `rows` requests that `order` names, those with most drafts first.  `tokens` follow the entries,
 * request by request; `drafts` is [most][rows], and so are `points`, with a manner for each of the rows; both null: the likeliest.
 * `kept`: how many of a row's drafts are kept, those of which the chance that all so far are right is at least `least`. */
void wb_draft(const DraftHead *h, const Asked *asked, int64_t requests, const int64_t *order, int64_t rows, const int64_t *tokens,
              const int64_t *tables, const float *const *taps, const Manner *manners, const double *points, float least, int64_t *kept,
              int64_t *drafts, uint16_t *kv, float *room, const Step *shape) {
    int64_t entries = 0, size = h->vocabulary.size, half = shape->dim / 2;
    for (int64_t i = 0; i < requests; i++) entries += asked[i].count;
    int64_t *slots = (int64_t *)room, *tap_rows = slots + 3 * entries, *lasts = tap_rows + entries, *scored = lasts + requests;
    float *cosines = (float *)(scored + rows), *hidden = cosines + 2 * entries * half, *g = hidden + rows * size;
    float *normed = g + entries * size, *rest = normed + entries * h->taps * size;
    Places p = {slots, slots + entries, slots + 2 * entries, cosines, cosines + entries * half, h, 0, half};
    for (int64_t i = 0; i < requests; i++) {
        for (int64_t j = 0; j < asked[i].count; j++) {
            tap_rows[p.count] = asked[i].tap_row + j;
            place(&p, asked + i, asked[i].start + j, tables, shape->block_size);
        }
        lasts[i] = p.count - 1;
    }
    for (int64_t i = 0; i < rows; i++) scored[i] = lasts[order[i]];
    Step step = step_of(&p, tables, shape);
    float *chances = rest, *hopes = chances + rows;
    for (int64_t i = 0; i < rows; i++) kept[i] = 0, hopes[i] = 1;
    rest += 2 * rows;
    Pass read = {tokens, scored, rows, &step, manners, points, chances};
    Entries e = {.head = h, .pass = &read, .taps = taps, .tap_rows = tap_rows, .to = normed};
    run_pieces(some_taps, &e, (entries + AT_ONCE - 1) / AT_ONCE, step.threads);
    apply(&h->fc, normed, g, entries, step.threads);
    pass_over(h, &read, g, hidden, drafts, kv, rest);
    for (int64_t done = 1, left = rows; rows; done++, drafts += rows) {
        int64_t hopeful = 0; /* rows that go on; the others are drafted for as long as any does, in vain */
        for (int64_t i = 0; i < left; i++) {
            hopes[i] *= chances[i];
            if (kept[i] == done - 1 && !(hopes[i] < least)) kept[i] = done, hopeful++;
        }
        while (left && asked[order[left - 1]].drafts <= done) left--;
        if (!left || !hopeful) break;
        p.count = 0;
        for (int64_t i = 0; i < left; i++) {
            const Asked *one = asked + order[i];
            place(&p, one, one->start + one->count - 1 + done, tables, shape->block_size);
        }
        step = step_of(&p, tables, shape);
        Pass pass = {drafts, 0, left, &step, manners, points ? points + done * rows : 0, chances};
        pass_over(h, &pass, hidden, hidden, drafts + rows, kv, rest);
    }
}
