/* A pool of threads that share out the pieces of one job at a time.
 *
 * Why not OpenMP: macOS's compiler has none, and its barriers wait for every thread of a team, so on a busy machine each of the some 250
 * regions of a step can cost a scheduler's time slice.  Here the caller works too and waits only for pieces that somebody has begun.
 *
 * The protocol: fields of a job are written while `remaining` is 0 or less, and read only by who took a piece by lowering it.  `active`
 * is raised before a piece is taken and lowered after the last one, so `active == 0` with nothing remaining means that the job is done.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

enum { EAGER_SPINS = 200, SPINS = 1000, MOST_HELPERS = 255 };

typedef void (*Work)(const void *job, int64_t piece);

static struct {
    pthread_mutex_t owner, lock;
    pthread_cond_t wake;
    atomic_int helpers, active, sleepers;
    _Atomic int64_t remaining;
    Work work;
    const void *job;
    int started;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* Wait a moment.  After a few, offer the core: the one that we wait for may be waiting for it, where others compute too. */
static inline void relax(int spins) {
    if (spins > EAGER_SPINS) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_pieces(void) {
    int64_t left;
    while ((left = atomic_fetch_sub(&pool.remaining, 1)) > 0) pool.work(pool.job, left - 1);
}

static int called(int self) { return atomic_load(&pool.remaining) > 0 && self < atomic_load(&pool.helpers); }

static void *helper(void *argument) {
    int self = (int)(intptr_t)argument;
    for (;;) {
        for (int spins = 0; !called(self) && spins < SPINS; spins++) relax(spins);
        if (!called(self)) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.sleepers, 1); /* before the check: run_pieces looks at it after it has set `remaining` */
            while (!called(self)) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.sleepers, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        atomic_fetch_add(&pool.active, 1);
        take_pieces();
        atomic_fetch_sub(&pool.active, 1);
    }
    return 0;
}

/* A forked child has none of its parent's helpers: it begins with an empty pool. */
static void forget_helpers(void) {
    pthread_mutex_init(&pool.owner, 0);
    pthread_mutex_init(&pool.lock, 0);
    pthread_cond_init(&pool.wake, 0);
    atomic_store(&pool.active, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.remaining, 0);
    pool.started = 0;
}

static void start_helpers(int count) {
    static int watched;
    pthread_t thread;
    if (!watched) watched = !pthread_atfork(0, 0, forget_helpers);
    for (; pool.started < count; pool.started++) {
        if (pthread_create(&thread, 0, helper, (void *)(intptr_t)pool.started)) return;
        pthread_detach(thread);
    }
}

/* Run work(job, piece) for every piece, the last first, on up to `threads` threads; a second caller meanwhile works alone. */
static void run_pieces(Work work, const void *job, int64_t pieces, int threads) {
    int helpers = (int)(threads - 1 < pieces - 1 ? threads - 1 : pieces - 1);
    if (helpers > MOST_HELPERS) helpers = MOST_HELPERS;
    if (helpers < 1 || pthread_mutex_trylock(&pool.owner)) {
        for (int64_t piece = pieces - 1; piece >= 0; piece--) work(job, piece);
        return;
    }
    start_helpers(helpers);
    pool.work = work, pool.job = job;
    atomic_store(&pool.helpers, helpers);
    atomic_store(&pool.remaining, pieces);
    if (atomic_load(&pool.sleepers) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    take_pieces();
    for (int spins = 0; atomic_load(&pool.active) > 0; spins += spins <= EAGER_SPINS) relax(spins);
    pthread_mutex_unlock(&pool.owner);
}
