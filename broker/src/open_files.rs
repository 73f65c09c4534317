//! How many files the process may have open.
//!
//! Logs keep so many of them as `storage::open_files` allows, and a connection holds one. Most systems
//! start processes with a soft limit of 1,024, for programs that still use `select`, and let them raise
//! it.

use std::io;

/// Raises the soft limit to the hard one, and returns it.
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a whole `rlimit`, and is only written during the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a whole `rlimit`, and is only read during the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}
