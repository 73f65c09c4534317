//! Text models keep processors busy for milliseconds at a time: their threads give way to all others.

/// Makes the calling thread give way, on Linux, where a thread has a priority of its own: to whoever wakes up on its
/// processor, instead of some milliseconds later.
#[cfg(target_os = "linux")]
pub(super) fn give_way(model: &str) {
    /// A tenth of what others get where processors are short: lag grows before others wait.
    const NICE: i32 = 10;
    /// After this long somebody else is looked for; kernels before 6.12 don't look at it.
    const SLICE_NS: u64 = 100_000;
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes of `attributes` as its size says; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, model, "the model runs at the priority of everything else");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn give_way(_model: &str) {}
