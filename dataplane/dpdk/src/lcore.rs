//! Lcores: the pinned threads that workers run on, the main one included.
//!
//! Why it exists: DPDK starts a C function with a pointer on a thread that it made. Here that is a closure that may
//! borrow, whose result comes back, and that is always waited for.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use dpdk_sys as sys;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::eal::Eal;
use crate::error::Error;

/// A set of CPUs that a thread may use. EAL pins the thread that starts it, and threads started by that one
/// inherit the pin; a manager thread calls [`Affinity::apply`] first, so as not to share a worker's CPU.
#[derive(Clone, Copy, Debug)]
pub struct Affinity(CpuSet);

impl Affinity {
    /// The calling thread's.
    pub fn current() -> Result<Self, Error> {
        sched_getaffinity(None::<Pid>).map(Self).map_err(|error| Error::Affinity(error.to_string()))
    }

    /// Gives it to the calling thread.
    pub fn apply(&self) -> Result<(), Error> {
        sched_setaffinity(None::<Pid>, &self.0).map_err(|error| Error::Affinity(error.to_string()))
    }

    /// The same set without some CPUs; unchanged if none would be left.
    #[must_use]
    pub fn without(mut self, cpus: &[u32]) -> Self {
        let before = self;
        for cpu in
            cpus.iter().filter_map(|cpu| usize::try_from(*cpu).ok()).filter(|cpu| *cpu < CpuSet::MAX_CPU)
        {
            self.0.unset(cpu);
        }
        if self.0.count() == 0 { before } else { self }
    }

    /// How many CPUs there are in it.
    pub fn count(&self) -> u32 {
        self.0.count()
    }
}

/// A job on its way to an lcore, and its result on the way back.
struct Slot<F, T> {
    job: Option<F>,
    outcome: Option<thread::Result<T>>,
}

impl<F: FnOnce() -> T, T> Slot<F, T> {
    fn work(&mut self) {
        // A panic must not unwind through C; it goes on in `Eal::run`, which gives up everything the job had.
        self.outcome = self.job.take().map(|job| catch_unwind(AssertUnwindSafe(job)));
    }
}

/// What DPDK calls on the lcore.
///
/// # Safety
/// `slot` points to a `Slot<F, T>` that nobody else uses until this returns.
unsafe extern "C" fn work<F: FnOnce() -> T, T>(slot: *mut c_void) -> c_int {
    // SAFETY: by this function's contract.
    let slot = unsafe { &mut *slot.cast::<Slot<F, T>>() };
    slot.work();
    0
}

impl Eal {
    /// Runs the jobs, the first on the first lcore and so on, and gives their results when all have ended. One of
    /// them runs on the calling thread, which must be the one that started EAL. Jobs may borrow.
    pub fn run<F, T>(&self, jobs: Vec<F>) -> Result<Vec<T>, Error>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let lcores = self.lcores();
        if jobs.len() > lcores.len() {
            return Err(Error::Launch("there are more jobs than lcores"));
        }
        let main = self.inner().main_lcore;
        // SAFETY: reads a thread-local number.
        if unsafe { sys::weft_lcore_id() } != main {
            return Err(Error::Launch("only the thread that started DPDK may start them"));
        }
        let idle = |lcore: &&u32| {
            // SAFETY: the lcore is one of EAL's own.
            **lcore == main || unsafe { sys::rte_eal_get_lcore_state(**lcore) } == sys::WAIT
        };
        if lcores.iter().take(jobs.len()).filter(idle).count() != jobs.len() {
            return Err(Error::Launch("an lcore is busy with an earlier one"));
        }
        let mut slots: Vec<Slot<F, T>> =
            jobs.into_iter().map(|job| Slot { job: Some(job), outcome: None }).collect();
        launch(lcores, main, &mut slots);
        let outcomes: Vec<_> = slots.into_iter().map(|slot| slot.outcome).collect();
        outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Some(Ok(value)) => Ok(value),
                Some(Err(panic)) => resume_unwind(panic),
                None => Err(Error::Launch("an lcore did not take its job")),
            })
            .collect()
    }
}

/// Starts every slot's job on its lcore and waits for all of them.
fn launch<F: FnOnce() -> T + Send, T: Send>(lcores: &[u32], main: u32, slots: &mut [Slot<F, T>]) {
    let mut own = None;
    for (lcore, slot) in lcores.iter().zip(slots) {
        if *lcore == main {
            own = Some(slot);
            continue;
        }
        // SAFETY: the slot outlives the job, for this function waits below on every path (nothing between unwinds), and
        // nobody touches it meanwhile; F and T are Send. A launch that fails leaves the slot without outcome.
        let _ = unsafe { sys::rte_eal_remote_launch(Some(work::<F, T>), (&raw mut *slot).cast(), *lcore) };
    }
    if let Some(slot) = own {
        slot.work();
    }
    for lcore in lcores.iter().filter(|lcore| **lcore != main) {
        // SAFETY: the calling thread is the main lcore's (checked by `run`); an idle lcore returns at once.
        let _ = unsafe { sys::rte_eal_wait_lcore(*lcore) };
    }
}
