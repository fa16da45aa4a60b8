/* All kernels of one target in one type. A target file defines FM_REAL and FM_KERNELS, and includes its vector words, then this. */
#include "../cpu.h"
#include "common.inc.c"
#include "vmath.inc.c"
#include "transpose.inc.c"
#include "columns.inc.c"
#include "activation.inc.c"
#include "optimizer.inc.c"
#include "prefetch.inc.c"
#include "matmul.inc.c"
#include "nontemporal.inc.c"
#include "update.inc.c"
#include "small.inc.c"
#include "linear.inc.c"
#include "linear_grad.inc.c"
#include "linear_back.inc.c"
#include "finite.inc.c"
#include "rows.inc.c"
#include "loss.inc.c"

#define X(name, split) [FM_##name] = name,
const fm_kernels FM_KERNELS = {FM_TARGET, {FM_OPCODES(X)}, all_finite, MAIN_TILE_ROWS, sizeof(real)};
#undef X
