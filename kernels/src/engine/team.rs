//! A fixed team of threads that work on one job together: one parallel region, spinning barriers inside.
//! Knows no block.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::error::ComputeError;

/// Spins before a waiting thread offers its core to others: some microseconds.
const SPINS: usize = 4000;

/// The calling thread and `size − 1` threads of a private rayon pool.
pub(crate) struct Team {
    pool: Option<rayon::ThreadPool>,
    size: usize,
}

/// One run of a job. Counted down by the pool's threads, awaited by the caller.
struct Region {
    running: AtomicUsize,
    caller: thread::Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    pub(crate) fn new(size: usize) -> Result<Self, ComputeError> {
        if !(1..=1024).contains(&size) {
            return Err(ComputeError::Threads(size));
        }
        let build = || {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(size - 1);
            builder.thread_name(|i| format!("pipe-engine-{}", i + 1)).build()
        };
        let pool =
            if size == 1 { None } else { Some(build().map_err(|e| ComputeError::Spawn(e.to_string()))?) };
        Ok(Self { pool, size })
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Runs `job(0)` here and `job(1..size)` on the pool, and returns when all are done. A panic in any of them
    /// is carried on here, after the others ended.
    ///
    /// The wait never runs other rayon work: a caller that is itself a rayon worker could otherwise be handed a
    /// job that wants the engine it is holding.
    pub(crate) fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let Some(pool) = &self.pool else { return job(0) };
        let region = Arc::new(Region {
            running: AtomicUsize::new(self.size - 1),
            caller: thread::current(),
            panic: Mutex::new(None),
        });
        // SAFETY: only the lifetime is widened. The threads use the job until `running` reaches zero, and this
        // function does not return, not even by unwinding, before it has.
        let job_static: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(job) };
        let theirs = Arc::clone(&region);
        pool.spawn_broadcast(move |context| {
            let result = catch_unwind(AssertUnwindSafe(|| job_static(context.index() + 1)));
            if let (Err(panic), Ok(mut slot)) = (result, theirs.panic.lock()) {
                slot.get_or_insert(panic);
            }
            let caller = theirs.caller.clone();
            if theirs.running.fetch_sub(1, Ordering::Release) == 1 {
                caller.unpark();
            }
        });
        let mine = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while region.running.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                thread::park_timeout(std::time::Duration::from_millis(10));
            }
        }
        let theirs = region.panic.lock().ok().and_then(|mut slot| slot.take());
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

/// A barrier for the threads of one region: spins for a few microseconds, then yields, so that it also works
/// with more threads than cores.
pub(crate) struct Barrier {
    size: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
}

impl Barrier {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Returns when all threads have come. What each wrote before is visible to all after.
    ///
    /// # Panics
    /// When another thread of the region panicked, since it will never come.
    pub(crate) fn wait(&self) {
        if self.size == 1 {
            return;
        }
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round {
            assert!(!self.broken.load(Ordering::Relaxed), "another thread of the engine panicked");
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }

    /// Held by each thread; breaks the barrier when the thread unwinds.
    pub(crate) fn guard(&self) -> BarrierGuard<'_> {
        BarrierGuard(self)
    }
}

pub(crate) struct BarrierGuard<'a>(&'a Barrier);

impl Drop for BarrierGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Thread `thread`'s contiguous share of `n` things: shares differ by at most one.
pub(crate) fn share(n: usize, thread: usize, threads: usize) -> std::ops::Range<usize> {
    n * thread / threads..n * (thread + 1) / threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_lets_nobody_past_early_with_more_threads_than_cores() {
        let team = Team::new(9).unwrap();
        let barrier = Barrier::new(9);
        let steps = AtomicUsize::new(0);
        team.run(&|_| {
            for round in 0..50 {
                steps.fetch_add(1, Ordering::Relaxed);
                barrier.wait();
                assert_eq!(steps.load(Ordering::Relaxed), (round + 1) * 9);
                barrier.wait();
            }
        });
        assert_eq!(steps.into_inner(), 450);
    }

    #[test]
    fn a_panic_on_one_thread_ends_the_region_and_the_team_lives_on() {
        let team = Team::new(3).unwrap();
        for bad in 0..3 {
            let barrier = Barrier::new(3);
            let run = || {
                team.run(&|t| {
                    let _guard = barrier.guard();
                    assert_ne!(t, bad, "on purpose");
                    barrier.wait();
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        let count = AtomicUsize::new(0);
        team.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 3);
    }

    #[test]
    fn shares_cover_everything_once() {
        for (n, threads) in [(0, 3), (1, 8), (36, 2), (37, 5)] {
            let all: Vec<usize> = (0..threads).flat_map(|t| share(n, t, threads)).collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }
}
