# Declarations of the contract with the kernels, which csrc/fastmlp.h documents. Cython reads this file with _engine.pyx.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef extern from "fastmlp.h" nogil:
    ctypedef struct fm_mat:
        void *p
        int64_t ld
    ctypedef struct fm_rule:
        int32_t nesterov, decay_bias, plain
        double momentum, alpha, beta1, beta2, eps, l1, l2, decay, lr_weight, lr_bias, clip_value, clip_norm
    ctypedef struct fm_op:
        int32_t opcode, kind, labels, bias, accumulate, smooth_clip, direct, partial
        int64_t n_in, n_out, first_in
        fm_mat x, w, init, y, z, dy, dx, t, g, s1, s2, part, aux
        double *row_loss
        uint8_t *nonfinite
        const char *data
        int64_t data_row, data_column
        double param
        uint64_t seed
        fm_rule rule
    ctypedef struct fm_kernels:
        const char *target
        int real_bytes
    ctypedef struct fm_sharing:
        fm_op *ops
        const uint8_t *sync
        const uint8_t *own
        int32_t barriers
    enum:
        FM_DIRECT_ROWS
    int FM_MAX_WORKERS
    ctypedef struct fm_balance:
        int n
        double share[2][256]  # FM_N_SHARED, FM_MAX_WORKERS
    ctypedef struct fm_choice:
        int64_t n[2]
    ctypedef struct fm_plan:
        fm_sharing any, team
        const int64_t *span
        int32_t n_ops, n_workers, last_direct, row_block
        int64_t capacity
        const double *row_loss
        const fm_rule *adam
        double work
        const fm_kernels *kernels
    ctypedef struct fm_run_args:
        const int64_t *order
        const int64_t *offsets
        const double *lr
        const double *weight
        double *losses
        int64_t n_steps, first_number
        int32_t first_op, last_op, n_threads, apart
        fm_balance *balance
        fm_choice *choice
    ctypedef struct fm_target:
        const char *name
        int (*supported)()
        const fm_kernels *kernels[2]
    void fm_run(const fm_plan *plan, const fm_run_args *args)
    const fm_target fm_targets[]
    int FM_N_OPCODES, FM_N_ACTIVATIONS, FM_N_LOSSES, FM_N_OPTIMIZERS, FM_N_SOURCES
    int FM_gather, FM_scatter
    int FM_APART_MEASURED, FM_APART_NEAR, FM_APART_FAR
    int FM_BARRIERS_NONE, FM_BARRIERS_FOR_LOSS, FM_BARRIERS_BY_SYNC

cdef extern from "checks.h" nogil:
    ctypedef struct fm_array:
        const char *data
        int64_t rows, columns, row, column, itemsize
        int32_t kind
    int fm_all_finite(const fm_kernels *kernels, const void *x, int64_t n, int64_t itemsize, int n_threads)
    int fm_all_within(const fm_array *array, double low, double high, int n_threads)

cdef extern from "partner.h" nogil:
    ctypedef struct fm_partner:
        pass
    int FM_PARTNER_ROW, FM_PARTNER_NONE, FM_PARTNER_WANTED
    fm_partner *fm_partner_new(const fm_plan *plan)
    int fm_partner_row(fm_partner *partner)
    void fm_partner_was_alone(fm_partner *partner, int64_t start)
    void fm_partner_invite(fm_partner *partner)
    void fm_partner_insist(fm_partner *partner)
    void fm_partner_dismiss(fm_partner *partner)
    void fm_partner_free(fm_partner *partner)

cdef extern from "threads.h" nogil:
    void fm_team_insist(int insist)

cdef extern from "balance.h" nogil:
    int64_t fm_ticks()
