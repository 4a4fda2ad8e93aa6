//! Threads that go on beside a test until it is over.

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads to end when it is dropped, also by a test that fails: their scope waits for them.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
