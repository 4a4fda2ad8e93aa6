//! What the C library's allocator gives back to the system, and when.
//!
//! A push frees and asks for blocks of a quarter of a megabyte all the time. As glibc comes, it gives such
//! memory back each time and gets it again, page by page and filled with zeros: a tenth of what a first
//! push takes in the server. And how much SQLite may have of it.

/// What all of SQLite may have in memory at once, in bytes: merges and queries of pushed databases, and the catalog.
/// Each has caches of a few megabytes; beyond that it is the rows and values that a statement works on, 256 MiB
/// each at most, which no limit of a connection adds up.
const SQLITE_MAX: u64 = 2 << 30;

/// Bounds SQLite's memory: what somebody pushed, or asks of it, cannot take all of the machine's.
pub fn bound_sqlite() {
    sqlrsync_database::version::limit_heap(SQLITE_MAX);
}

/// Keeps a few megabytes of freed memory, for all threads together. Call it before any thread is started.
pub fn keep_some() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const KEPT: libc::c_int = 4 << 20;
        const OWN_MAPPING_MIN: libc::c_int = 2 << 20;
        // Else each thread that works on blocks keeps as much as the largest work ever needed.
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt takes two numbers; no other thread allocates yet.
        let set = unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT)
                & libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_MIN)
                & libc::mallopt(libc::M_ARENA_MAX, ARENAS)
        };
        debug_assert_eq!(set, 1, "glibc knows all three");
    }
}
