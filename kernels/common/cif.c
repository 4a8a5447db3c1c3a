/* go_cif: continuous integrate-and-fire, frames of weighted hidden vectors to tokens.
 *
 * Per batch item the weights are read in order of time. GO_CIF_INTEGRATE adds them up
 * in f32, fires where the sum reaches the threshold and goes on with what is above 1;
 * GO_CIF_PREFIX adds in f64, rounds each prefix sum to f32 and fires where its whole
 * part grows. The frame that fires is split: `now` of it closes the token, `next`
 * opens the one behind. A token is one chain of fused multiply-adds in order of time,
 * starting from 0, so that it depends on no other item and no split into tasks.
 *
 * First one task per item makes the schedule of its frames, then one per item and
 * block of channels sums.
 */
#include <math.h>

#include "go_vec.h"
#include "split.h"

enum { BLOCK_VECTORS = 4, BLOCK = BLOCK_VECTORS * GO_LANES };

/* What becomes of one frame. Its size is that of cif_scratch_bytes in scratch.py. */
typedef struct {
    float now, next;
    int32_t fires;
} share;

/* Weights that count as more tokens than this, or as none at all (NaN), are no count. */
static const float MOST_TOKENS = 1e9f;

static int32_t count_of(double sum, int32_t fires, go_cif_count rule) {
    if (rule == GO_CIF_COUNT_FIRES) return fires;
    float total = (float)sum;
    if (!(total > -1.0f && total < MOST_TOKENS)) return -1;
    total = rule == GO_CIF_COUNT_FLOOR ? floorf(total) : rintf(total);
    return total > 0.0f ? (int32_t)total : 0;
}

/* Shares of one item's frames; its peaks and its number of tokens. */
static void schedule(const go_cif_args *a, size_t item) {
    const float *alphas = a->alphas + (ptrdiff_t)item * a->alphas_stride[0];
    share *shares = (share *)a->scratch + item * a->frames;
    float *peaks = a->peaks + item * a->frames;
    float level = 0.0f; /* integrated so far, or the whole tokens of the last prefix sum */
    double sum = 0.0;
    int32_t fired = 0;
    for (size_t t = 0; t < a->frames; t++) {
        float alpha = alphas[(ptrdiff_t)t * a->alphas_stride[1]];
        share s = {.now = alpha};
        sum += (double)alpha;
        if (a->rule == GO_CIF_PREFIX) {
            float prefix = (float)sum, whole = floorf(prefix);
            s.fires = whole > level;
            peaks[t] = s.fires ? (1.0f + prefix) - whole : prefix - whole;
            if (s.fires) {
                s.next = peaks[t] - floorf(peaks[t]);
                s.now = alpha - s.next;
            }
            level = whole;
        } else {
            float missing = 1.0f - level;
            level += alpha;
            peaks[t] = level;
            s.fires = level >= a->threshold;
            if (s.fires) {
                s.now = missing;
                s.next = alpha - missing;
                level -= 1.0f;
            }
        }
        fired += s.fires;
        shares[t] = s;
    }
    a->counts[item] = count_of(sum, fired, a->count);
}

/* Tokens of the longest item, or -1 if the weights of one give no count. */
static int64_t longest(const go_cif_args *a) {
    int64_t most = 0;
    for (size_t item = 0; item < a->batch; item++) {
        if (a->counts[item] < 0) return -1;
        if (a->counts[item] > most) most = a->counts[item];
    }
    return most;
}

/* The tokens of one item in `vectors` (a constant) times n channels from c on. */
GO_INLINE void sum_tokens(const go_cif_args *a, size_t item, size_t tokens, size_t c,
                          const int vectors, size_t n) {
    const share *shares = (const share *)a->scratch + item * a->frames;
    const float *hidden = a->hidden + (ptrdiff_t)item * a->hidden_stride[0] + (ptrdiff_t)c;
    float *dst = a->dst + item * tokens * a->channels + c;
    go_f32x16 sum[BLOCK_VECTORS];
    size_t made = 0;
    GO_UNROLLED (i, vectors) sum[i] = go_zero();
    for (size_t t = 0; t < a->frames && made < tokens; t++) {
        const float *row = hidden + (ptrdiff_t)t * a->hidden_stride[1];
        const go_f32x16 now = go_splat(shares[t].now), next = go_splat(shares[t].next);
        GO_UNROLLED (i, vectors) {
            go_f32x16 h = go_load_n(row + i * GO_LANES, n);
            sum[i] = go_fma(now, h, sum[i]);
            if (!shares[t].fires) continue;
            go_store_n(dst + made * a->channels + i * GO_LANES, sum[i], n);
            sum[i] = next * h;
        }
        made += shares[t].fires != 0;
    }
    for (; made < tokens; made++)
        GO_UNROLLED (i, vectors) go_store_n(dst + made * a->channels + i * GO_LANES, go_zero(), n);
}

void GO_NAME(cif)(go_team *team, const go_cif_args *a);

void GO_NAME(cif)(go_team *team, const go_cif_args *a) {
    for (size_t item; (item = go_next(team, a->batch)) < a->batch;) schedule(a, item);
    go_barrier(team);
    const size_t blocks = go_ceil_div(a->channels, BLOCK), tasks = a->batch * blocks;
    for (size_t task; (task = go_next(team, tasks)) < tasks;) {
        int64_t wanted = longest(a);
        if (task == 0) *a->tokens = wanted;
        size_t tokens = wanted < 0 ? 0 : (size_t)wanted;
        if (tokens > a->max_tokens) tokens = a->max_tokens;
        size_t item = task / blocks, first = task % blocks * BLOCK;
        if (first + BLOCK <= a->channels) {
            sum_tokens(a, item, tokens, first, BLOCK_VECTORS, GO_LANES);
            continue;
        }
        for (size_t c = first; c < a->channels; c += GO_LANES) {
            size_t rest = a->channels - c;
            sum_tokens(a, item, tokens, c, 1, rest < GO_LANES ? rest : GO_LANES);
        }
    }
}
