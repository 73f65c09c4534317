//! Settings of glibc's allocator, in which librdkafka keeps each record until it is acknowledged.
//!
//! By default it gives memory back to the system as soon as a batch is acknowledged, only to take
//! it again for the next: of the processor time of a producer of 1 KiB records, half of what is the
//! kernel's. Here it keeps up to 1 GiB, as much as librdkafka's queue may hold.

/// To be called before the first thread starts. Does nothing where the allocator is another.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: libc::c_int = 1 << 20;
        // Setting one of them ends their adjustment at run time, so all three are set.
        for (parameter, value) in [
            (libc::M_TRIM_THRESHOLD, 1024 * MIB),
            (libc::M_TOP_PAD, 64 * MIB),
            (libc::M_MMAP_THRESHOLD, 32 * MIB),
        ] {
            // SAFETY: mallopt takes two numbers, and no other thread allocates meanwhile. A refusal
            // leaves the default.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
