/* Drafting with an EAGLE head, draft after draft in one call: the same operations as `EagleHead.run`, on int8 matrices.
 *
 * A draft takes half a millisecond of reading weights, and as long again when each of its some twenty operations is called from Python, whose
 * own code and data the weights have driven out of the caches meanwhile.
 */
typedef struct {
    const void *packed;
    const float *scale;
    int64_t inputs, outputs;
} Matrix;

typedef struct {
    Matrix qkv, output, gate_up, down, head;
    const float *embed_norm, *feature_norm, *ffn_norm, *norm;
    const uint16_t *embedding; /* [vocabulary][size], bf16 */
    const int64_t *draft_ids;
} DraftHead;

static void apply(const Matrix *m, const float *x, float *y, int64_t rows, int32_t threads) {
    wb_linear(x, m->packed, m->scale, 0, y, rows, m->inputs, m->outputs, threads);
}

static int64_t likeliest(const float *scores, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (scores[i] > scores[best]) best = i;
    return best;
}

/* Floats that one pass over so many rows works on. */
int64_t wb_draft_room(const DraftHead *h, int64_t rows) {
    int64_t size = h->output.outputs;
    return rows * (4 * size + h->qkv.outputs + h->output.inputs + h->gate_up.outputs + h->down.inputs + h->head.outputs);
}

/* One pass: the tokens `ids` are read on top of `hidden`, which becomes what the next pass goes on from. */
static void draft_once(const DraftHead *h, const int64_t *ids, float *hidden, int64_t *next, uint16_t *kv, float *room, const Step *s) {
    int64_t rows = s->tokens, size = h->output.outputs;
    float *both = room, *qkv = both + rows * 2 * size, *attended = qkv + rows * h->qkv.outputs;
    float *delta = attended + rows * h->output.inputs, *normed = delta + rows * size, *gates = normed + rows * size;
    float *gated = gates + rows * h->gate_up.outputs, *scores = gated + rows * h->down.inputs;
    for (int64_t row = 0; row < rows; row++) {
        const uint16_t *embedded = h->embedding + ids[row] * size;
        float *to = both + row * 2 * size;
        for (int64_t i = 0; i < size; i++) {
            uint32_t bits = (uint32_t)embedded[i] << 16;
            memcpy(to + i, &bits, 4);
        }
        normalise(to, h->embed_norm, to, size, s->eps);
        normalise(hidden + row * size, h->feature_norm, to + size, size, s->eps);
    }
    apply(&h->qkv, both, qkv, rows, s->threads);
    wb_attend(qkv, 0, 0, 1, kv, attended, s);
    apply(&h->output, attended, delta, rows, s->threads);
    wb_add_rms_norm(hidden, delta, h->ffn_norm, normed, rows, size, s->eps, s->threads);
    apply(&h->gate_up, normed, gates, rows, s->threads);
    wb_silu_mul(gates, gated, rows, h->down.inputs, s->threads);
    apply(&h->down, gated, delta, rows, s->threads);
    wb_add_rms_norm(hidden, delta, h->norm, normed, rows, size, s->eps, s->threads);
    apply(&h->head, normed, scores, rows, s->threads);
    for (int64_t row = 0; row < rows; row++) next[row] = h->draft_ids[likeliest(scores + row * h->head.outputs, h->head.outputs)];
}

/* `passes` drafts one after the other.  In pass i only the first `counts[i]` rows take part.  `drafts` is [passes + 1][rows] and begins
 * with the tokens that are read first; slots, positions, cosines and sines of `first` are those of all passes, [passes][rows]. */
void wb_draft(const DraftHead *h, int64_t passes, const int64_t *counts, int64_t *drafts, float *hidden, uint16_t *kv, float *room,
              const Step *first) {
    int64_t rows = first->tokens;
    for (int64_t pass = 0; pass < passes; pass++) {
        int64_t at = pass * rows;
        Step s = *first;
        s.tokens = counts[pass], s.slots += at, s.positions += at;
        s.cosines += at * (s.dim / 2), s.sines += at * (s.dim / 2);
        draft_once(h, drafts + at, hidden, drafts + at + rows, kv, room, &s);
    }
}
