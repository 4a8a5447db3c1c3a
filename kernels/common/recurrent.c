/* go_recurrent: LSTM, GRU and plain recurrent layers.
 *
 * Steps follow one another, so what threads share is a step: a chain is a direction of some items
 * of the batch, and a slice of it some blocks of units, whose weights lie side by side. A thread
 * that computes the same slices in every step finds their weights in its caches. Where there are
 * chains enough for all threads a task is a chain from the first step to the last, and nobody
 * waits; else a phase is a step (two with a projection), which ends with a barrier. A state is
 * read in one buffer and written to another; cells belong to their slice. Each thread packs the
 * rows of a chain for itself. Every number is computed the same way in whatever task.
 */
#include "go_vec_math.h"
#include "split.h"

enum {
    UNITS = GO_LANES, /* of a block */
    MOST_ROWS = 48,   /* of a chain */
    LEAST_ROWS = 8,   /* of a chain, where more chains would keep more threads busy */
    MOST_GATES = 4,
};

GO_LANEWISE(tanh_lanes, go_tanhf)
GO_LANEWISE(sigmoid_lanes, go_sigmoidf)

static const size_t GATES[] = {4, 3, 1, 1}; /* of a go_cell */

/* How a call is shared among threads. */
typedef struct {
    size_t groups, rows; /* chains of a direction, and items of one (but the last) */
    size_t chains, slices;
    size_t blocks, projected; /* of units, and of the columns of a projection */
} sharing;

static size_t greatest_divisor(size_t a, size_t b) {
    while (b) {
        const size_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

static sharing sharing_for(const go_recurrent_args *a, size_t threads) {
    const size_t wanted = go_min_size(go_ceil_div(threads, a->directions), a->batch / LEAST_ROWS);
    const size_t least = go_ceil_div(a->batch, MOST_ROWS);
    sharing s = {.blocks = go_ceil_div(a->hidden, UNITS)};
    s.projected = a->projection ? go_ceil_div(a->width, UNITS) : 0;
    s.rows = go_ceil_div(a->batch, wanted > least ? wanted : least);
    s.groups = go_ceil_div(a->batch, s.rows);
    s.chains = s.groups * a->directions;
    s.slices = go_min_size(threads / greatest_divisor(threads, s.chains), s.blocks);
    return s;
}

/* What all steps of a chain work with; `y` is what a projection reads. Rows of `width` and of
 * `units` floats, whole blocks. */
typedef struct {
    size_t direction, first, rows;
    float *state[2], *cell, *y;
    size_t width, units;
} chain;

static chain chain_at(const go_recurrent_args *a, const sharing *s, size_t number) {
    const size_t direction = number / s->groups, first = number % s->groups * s->rows;
    const size_t width = go_ceil_div(a->width, UNITS) * UNITS, units = s->blocks * UNITS;
    const size_t item = direction * a->batch + first, items = a->directions * a->batch;
    float *states = (float *)a->scratch, *cells = states + 2 * items * width;
    return (chain){
        .direction = direction,
        .first = first,
        .rows = go_min_size(s->rows, a->batch - first),
        .state = {states + item * width, states + (items + item) * width},
        .cell = cells + item * units,
        .y = cells + (items + item) * units,
        .width = width,
        .units = units,
    };
}

/* A thread's own memory: packed rows, and the product of a slice. */
typedef struct {
    void *rows;
    float *product;
    size_t held; /* which step of which chain is packed, from 1 on */
} workspace;

static workspace workspace_of(const go_recurrent_args *a, const sharing *s, size_t rank) {
    const chain c = chain_at(a, s, 0);
    const size_t items = a->directions * a->batch;
    const size_t most = c.units > c.width ? c.units : c.width;
    const size_t product = MOST_ROWS * MOST_GATES * most, rows = MOST_ROWS * (most + UNITS);
    float *own = (float *)a->scratch + 2 * items * (c.width + c.units) + rank * (product + rows);
    return (workspace){.rows = own + product, .product = own};
}

/* Rows `lhs` of a chain, `k` of `stride` values, times columns of packed weights, into the
 * workspace; `held` names the rows. */
static void multiply(const go_recurrent_args *a, workspace *w, const chain *c, const float *lhs,
                     size_t stride, size_t k, size_t held, const void *weights, size_t columns,
                     const float *bias) {
    go_gemm_args args = {
        .m = c->rows,
        .n = columns,
        .k = k,
        .lhs = lhs,
        .lhs_stride = (ptrdiff_t)stride,
        .rhs = weights,
        .dst = w->product,
        .dst_stride = (ptrdiff_t)columns,
        .dst_dtype = GO_F32,
        .epilogue = {.bias = bias},
    };
    if (a->pack) {
        if (w->held != held) {
            const go_pack_lhs_args rows = {
                .m = c->rows,
                .k = k,
                .src = lhs,
                .src_stride = (ptrdiff_t)stride,
                .src_dtype = GO_F32,
                .dst = w->rows,
            };
            go_team alone = go_alone();
            a->pack(&alone, &rows);
            w->held = held;
        }
        args.lhs = w->rows;
    }
    go_team alone = go_alone();
    a->product(&alone, &args);
}

/* 16 units: gates x of the inputs and p of the state, of each UNITS values; h before and, of an
 * LSTM, the cell, which changes. */
GO_INLINE go_f32x16 cell_step(const go_cell kind, const float *x, const float *p, go_f32x16 h,
                              go_f32x16 *cell) {
    const int summed = kind == GO_CELL_LSTM ? 4 : kind == GO_CELL_GRU ? 2 : 1;
    go_f32x16 sum[MOST_GATES] = {0};
    GO_UNROLLED (g, MOST_GATES)
        if (g < summed) sum[g] = go_load(x + g * UNITS) + go_load(p + g * UNITS);
    if (kind == GO_CELL_LSTM) {
        const go_f32x16 new = sigmoid_lanes(sum[0]) * tanh_lanes(sum[2]);
        *cell = go_fma(sigmoid_lanes(sum[1]), *cell, new);
        return sigmoid_lanes(sum[3]) * tanh_lanes(*cell);
    }
    if (kind == GO_CELL_GRU) {
        const go_f32x16 reset = sigmoid_lanes(sum[0]), update = sigmoid_lanes(sum[1]);
        const go_f32x16 new =
            tanh_lanes(go_fma(reset, go_load(p + 2 * UNITS), go_load(x + 2 * UNITS)));
        return go_fma(update, h - new, new);
    }
    if (kind == GO_CELL_TANH) return tanh_lanes(sum[0]);
    return go_select(sum[0] < go_zero(), go_zero(), sum[0]); /* a NaN stays one */
}

/* Whether step t of an item is one of its own. */
GO_INLINE int is_going(const go_recurrent_args *a, size_t item, size_t t) {
    return !a->lengths || (int64_t)t < a->lengths[item];
}

static size_t time_of(const go_recurrent_args *a, const chain *c, size_t step) {
    return c->direction ? a->time - 1 - step : step;
}

static float *result_at(const go_recurrent_args *a, const chain *c, size_t item, size_t t) {
    return a->dst + (ptrdiff_t)item * a->dst_stride[0] + (ptrdiff_t)t * a->dst_stride[1] +
           c->direction * a->width;
}

/* Stores columns `at` .. of a new state and of the result, or keeps the state. */
GO_INLINE void store_state(const go_recurrent_args *a, const chain *c, size_t row, size_t step,
                           size_t at, go_f32x16 y) {
    const size_t t = time_of(a, c, step), item = c->first + row;
    const size_t place = row * c->width + at;
    const int going = is_going(a, item, t);
    const go_f32x16 before = go_load(c->state[step % 2] + place);
    go_store(c->state[(step + 1) % 2] + place, going ? y : before);
    go_store_n(result_at(a, c, item, t) + at, going ? y : go_zero(),
               go_min_size(UNITS, a->width - at));
}

GO_INLINE void update_rows(const go_recurrent_args *a, const chain *c, const workspace *w,
                           size_t step, size_t begin, size_t end, const go_cell kind) {
    const size_t gates = GATES[kind], t = time_of(a, c, step);
    for (size_t row = 0; row < c->rows; row++) {
        const size_t item = c->first + row;
        const float *x = a->gates + (ptrdiff_t)item * a->gates_stride[0] +
                         (ptrdiff_t)t * a->gates_stride[1] + c->direction * gates * c->units;
        const float *p = w->product + row * gates * UNITS * (end - begin);
        for (size_t block = begin; block < end; block++, p += gates * UNITS) {
            float *held = c->cell + row * c->units + block * UNITS;
            const float *h = c->state[step % 2] + row * c->width + block * UNITS;
            go_f32x16 cell = kind == GO_CELL_LSTM ? go_load(held) : go_zero();
            const go_f32x16 y = cell_step(kind, x + block * gates * UNITS, p,
                                          kind == GO_CELL_GRU ? go_load(h) : cell, &cell);
            if (kind == GO_CELL_LSTM && is_going(a, item, t)) go_store(held, cell);
            if (a->projection)
                go_store(c->y + row * c->units + block * UNITS, y);
            else
                store_state(a, c, row, step, block * UNITS, y);
        }
    }
}

/* Blocks of a slice. */
static size_t slice_begin(size_t blocks, size_t slices, size_t slice) {
    return blocks * slice / slices;
}

/* A slice of the cells of a chain in a step. */
static void step_slice(const go_recurrent_args *a, const sharing *s, workspace *w, size_t number,
                       size_t slice, size_t step) {
    const chain c = chain_at(a, s, number);
    const size_t begin = slice_begin(s->blocks, s->slices, slice);
    const size_t end = slice_begin(s->blocks, s->slices, slice + 1);
    const size_t gates = GATES[a->cell_kind], columns = gates * UNITS;
    const char *weight = (const char *)a->weight + c.direction * a->weight_bytes +
                         a->weight_bytes / s->blocks * begin;
    const float *bias =
        a->bias ? a->bias + columns * (c.direction * s->blocks + begin) : (const float *)0;
    multiply(a, w, &c, c.state[step % 2], c.width, a->width, 2 * (step * s->chains + number) + 1,
             weight, columns * (end - begin), bias);
    switch (a->cell_kind) {
        case GO_CELL_LSTM:
            update_rows(a, &c, w, step, begin, end, GO_CELL_LSTM);
            break;
        case GO_CELL_GRU:
            update_rows(a, &c, w, step, begin, end, GO_CELL_GRU);
            break;
        case GO_CELL_TANH:
            update_rows(a, &c, w, step, begin, end, GO_CELL_TANH);
            break;
        default:
            update_rows(a, &c, w, step, begin, end, GO_CELL_RELU);
    }
}

/* A slice of the projection behind a step. */
static void project_slice(const go_recurrent_args *a, const sharing *s, workspace *w, size_t number,
                          size_t slice, size_t step) {
    const chain c = chain_at(a, s, number);
    const size_t begin = slice_begin(s->projected, s->slices, slice);
    const size_t end = slice_begin(s->projected, s->slices, slice + 1);
    const size_t columns = (end - begin) * UNITS;
    const char *weight = (const char *)a->projection + c.direction * a->projection_bytes +
                         a->projection_bytes / s->projected * begin;
    if (begin == end) return;
    multiply(a, w, &c, c.y, c.units, a->hidden, 2 * (step * s->chains + number) + 2, weight,
             columns, 0);
    for (size_t row = 0; row < c.rows; row++)
        for (size_t at = 0; at < columns; at += UNITS)
            store_state(a, &c, row, step, begin * UNITS + at,
                        go_load(w->product + row * columns + at));
}

/* Copies dense rows of n values to rows of `to_stride`, or back; what is behind them is zero. */
static void copy_rows(const float *from, size_t from_stride, float *to, size_t to_stride, size_t n,
                      size_t rows) {
    for (size_t row = 0; row < rows; row++, from += from_stride, to += to_stride) {
        memcpy(to, from, n * sizeof(float));
        if (to_stride > n) memset(to + n, 0, (to_stride - n) * sizeof(float));
    }
}

static void begin_chain(const go_recurrent_args *a, const sharing *s, size_t number) {
    const chain c = chain_at(a, s, number);
    const size_t item = c.direction * a->batch + c.first;
    copy_rows(a->state + item * a->width, a->width, c.state[0], c.width, a->width, c.rows);
    if (a->cell)
        copy_rows(a->cell + item * a->hidden, a->hidden, c.cell, c.units, a->hidden, c.rows);
}

static void end_chain(const go_recurrent_args *a, const sharing *s, size_t number) {
    const chain c = chain_at(a, s, number);
    const size_t item = c.direction * a->batch + c.first;
    copy_rows(c.state[a->time % 2], c.width, a->last_state + item * a->width, a->width, a->width,
              c.rows);
    if (a->cell)
        copy_rows(c.cell, c.units, a->last_cell + item * a->hidden, a->hidden, a->hidden, c.rows);
}

static void whole_chain(const go_recurrent_args *a, const sharing *s, workspace *w, size_t number) {
    begin_chain(a, s, number);
    for (size_t step = 0; step < a->time; step++) {
        step_slice(a, s, w, number, 0, step);
        if (a->projection) project_slice(a, s, w, number, 0, step);
    }
    end_chain(a, s, number);
}

void GO_NAME(recurrent)(go_team *team, const go_recurrent_args *a);

void GO_NAME(recurrent)(go_team *team, const go_recurrent_args *a) {
    if (a->batch == 0 || a->hidden == 0) return;
    const sharing s = sharing_for(a, team->size);
    const size_t tasks = s.chains * s.slices;
    workspace own = workspace_of(a, &s, team->rank);
    if (s.slices == 1) {
        for (size_t task; (task = go_next(team, tasks)) < tasks;) whole_chain(a, &s, &own, task);
        return;
    }
    for (size_t task; (task = go_next(team, s.chains)) < s.chains;) begin_chain(a, &s, task);
    go_barrier(team);
    for (size_t step = 0; step < a->time; step++) {
        for (size_t task; (task = go_next(team, tasks)) < tasks;)
            step_slice(a, &s, &own, task / s.slices, task % s.slices, step);
        go_barrier(team);
        if (!a->projection) continue;
        for (size_t task; (task = go_next(team, tasks)) < tasks;)
            project_slice(a, &s, &own, task / s.slices, task % s.slices, step);
        go_barrier(team);
    }
    for (size_t task; (task = go_next(team, s.chains)) < s.chains;) end_chain(a, &s, task);
}
