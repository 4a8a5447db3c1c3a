/* split.h, rows.h and gemm_driver.h as a kernel that the test host can run: for every row of
 * `src` how work is cut. */
#include "gemm_driver.h"
#include "rows.h"

typedef enum { LINES, ROWS, GEMM, OWNED } cut_kind;

typedef struct {
    size_t count;
    int kind;
    const uint64_t *src; /* [count][5] */
    uint64_t *dst;       /* [count][2] */
} cut_probe_args;

void cut_probe(go_team *team, const cut_probe_args *a);

void cut_probe(go_team *team, const cut_probe_args *a) {
    if (go_next(team, 1) != 0) return;
    for (size_t i = 0; i < a->count; i++) {
        const uint64_t *x = a->src + 5 * i;
        uint64_t *y = a->dst + 2 * i;
        if (a->kind == LINES) { /* threads, lines, units, most, fixed -> step, cost */
            const go_cut cut = go_cut_lines(x[0], x[1], x[2], x[3], x[4]);
            y[0] = cut.step, y[1] = cut.cost;
        } else if (a->kind == ROWS) { /* threads, lines, rows, elements of a row, unit -> rows */
            y[0] = go_task_rows_of(x[1], x[2], x[3], x[4], (unsigned)x[0]);
        } else if (a->kind == OWNED) { /* threads, m, n, k, rows of a tile -> rows, or 0: shared */
            const go_gemm_args args = {
                .m = x[1], .n = x[2], .k = x[3], .dst_stride = (ptrdiff_t)x[2], .packed = y};
            y[0] = go_owned_step(x[0], &args, x[4], go_gemm_fit(x[4], x[3]));
            y[1] = go_owned_rows(&args);
        } else { /* threads, m, n, k, rows of a tile -> rows and columns in tiles of 16 */
            const go_gemm_args args = {.m = x[1], .n = x[2], .k = x[3]};
            const go_gemm_cut cut = go_gemm_cut_for(x[0], &args, x[4], 16, x[3]);
            y[0] = cut.m, y[1] = cut.n;
        }
    }
}
