//! Work is done in parallel, results come in order, and memory stays bounded: with a source and a sink on threads
//! of their own and short queues in between, or, where a source is not needed, on the workers alone.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How many items wait in front of and behind each worker.
const QUEUE: usize = 3;

/// Threads that hash and compress. Two keep up with one reader; more would only take memory.
pub(crate) const WORKERS: usize = 2;

/// The other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Gives items away in order; an error says that nobody takes them any more.
pub(crate) struct Feed<T> {
    workers: Vec<SyncSender<T>>,
    next: usize,
}

impl<T> Feed<T> {
    pub(crate) fn give(&mut self, item: T) -> Result<(), Stopped> {
        let worker = self.next;
        self.next = (worker + 1) % self.workers.len();
        self.workers[worker].send(item).map_err(|_| Stopped)
    }
}

/// Runs `source` on a thread, `map` on [`WORKERS`] threads and `sink` on the calling one. The first
/// error ends all of them; the sink's or a worker's counts before the source's, which may only be the
/// consequence.
pub(crate) fn ordered_map<T, R, E>(
    source: impl FnOnce(&mut Feed<T>) -> Result<(), E> + Send,
    map: impl Fn(T) -> Result<R, E> + Sync,
    sink: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    R: Send,
    E: Send,
{
    thread::scope(|scope| {
        let mut feed = Feed { workers: Vec::with_capacity(WORKERS), next: 0 };
        let mut results = Vec::with_capacity(WORKERS);
        for _ in 0..WORKERS {
            let (give, take) = sync_channel(QUEUE);
            let (put, get) = sync_channel(QUEUE);
            feed.workers.push(give);
            results.push(get);
            let map = &map;
            scope.spawn(move || work(&take, &put, map));
        }
        // The feed moves into the source's thread: when that ends, the workers run dry and end too.
        let source = scope.spawn(move || source(&mut feed));
        let drained = drain(results, sink);
        let sourced = match source.join() {
            Ok(sourced) => sourced,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        drained.and(sourced)
    })
}

/// Runs `map` for the numbers below `len` on [`WORKERS`] threads, the calling one among them, which keep
/// something of their own in between, and `sink` with the results in the numbers' order, on whichever thread
/// has the next one. The first error in that order ends all of them.
///
/// No thread waits for another's result: handing each of them on to a thread of its own costs more than the
/// hashing of a chunk, where the machine has only as many processors as workers.
pub(crate) fn ordered_steps<S, R, E>(
    len: u64,
    map: impl Fn(&mut S, u64) -> Result<R, E> + Sync,
    sink: impl FnMut(R) -> Result<(), E> + Send,
) -> Result<(), E>
where
    S: Default,
    R: Send,
    E: Send,
{
    let steps = Steps::new(len, sink);
    let work = || {
        // A panic must not leave the others waiting for the number that it had.
        let stop = StopOnPanic(&steps);
        let mut own = S::default();
        while let Some(number) = steps.take() {
            steps.put(number, map(&mut own, number));
        }
        drop(stop);
    };
    thread::scope(|scope| {
        for _ in 1..WORKERS {
            scope.spawn(work);
        }
        work();
    });
    steps.finish()
}

/// How many results may wait for one before them.
const AHEAD: u64 = (WORKERS * QUEUE) as u64;

/// Numbers on their way out, and results on their way to the sink.
struct Steps<R, E, F> {
    len: u64,
    state: Mutex<Standing<R, E>>,
    /// Results went to the sink, or everything is over.
    moved: Condvar,
    /// Used by the one thread that set [`Standing::sinking`].
    sink: Mutex<F>,
}

struct Standing<R, E> {
    /// The next number that nobody works on.
    next: u64,
    /// So many results went to the sink.
    sunk: u64,
    waiting: BTreeMap<u64, Result<R, E>>,
    sinking: bool,
    stopped: bool,
    failed: Option<E>,
}

impl<R, E, F: FnMut(R) -> Result<(), E>> Steps<R, E, F> {
    fn new(len: u64, sink: F) -> Steps<R, E, F> {
        let state = Standing {
            next: 0,
            sunk: 0,
            waiting: BTreeMap::new(),
            sinking: false,
            stopped: false,
            failed: None,
        };
        Steps { len, state: Mutex::new(state), moved: Condvar::new(), sink: Mutex::new(sink) }
    }

    fn lock(&self) -> MutexGuard<'_, Standing<R, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number, once it is not too far ahead.
    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        while !state.stopped && state.next < self.len && state.next >= state.sunk + AHEAD {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.next == self.len {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    /// Puts a result down, and gives all to the sink that are next, unless another thread is about it.
    fn put(&self, number: u64, result: Result<R, E>) {
        let mut state = self.lock();
        state.waiting.insert(number, result);
        if state.sinking {
            return;
        }
        state.sinking = true;
        while !state.stopped {
            let next = state.sunk;
            let Some(result) = state.waiting.remove(&next) else { break };
            drop(state);
            let done = result.and_then(|result| {
                let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink(result)
            });
            state = self.lock();
            state.sunk += 1;
            if let Err(error) = done {
                state.failed = Some(error);
                state.stopped = true;
            }
            self.moved.notify_all();
        }
        state.sinking = false;
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.moved.notify_all();
    }

    fn finish(self) -> Result<(), E> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), Err)
    }
}

/// Stops the others when the thread that has it panics.
struct StopOnPanic<'s, R, E, F: FnMut(R) -> Result<(), E>>(&'s Steps<R, E, F>);

impl<R, E, F: FnMut(R) -> Result<(), E>> Drop for StopOnPanic<'_, R, E, F> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

fn work<T, R, E>(take: &Receiver<T>, put: &SyncSender<Result<R, E>>, map: &impl Fn(T) -> Result<R, E>) {
    for item in take {
        let result = map(item);
        let failed = result.is_err();
        if put.send(result).is_err() || failed {
            return;
        }
    }
}

/// Takes results round and round, as the feed gave the items. Consumes the receivers, so that whoever
/// still sends is stopped by an error.
fn drain<R, E>(
    results: Vec<Receiver<Result<R, E>>>,
    mut sink: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    for receiver in results.iter().cycle() {
        match receiver.recv() {
            Ok(result) => sink(result?)?,
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn run(fail_at: Option<u32>) -> (Result<(), String>, Vec<u32>) {
        let mut seen = Vec::new();
        let result = ordered_map(
            |feed| (0..1000u32).try_for_each(|n| feed.give(n).map_err(|_| "stopped".to_string())),
            |n| {
                if n % 7 == 0 {
                    thread::yield_now();
                }
                if fail_at == Some(n) { Err(format!("at {n}")) } else { Ok(n * 2) }
            },
            |n| {
                seen.push(n);
                Ok(())
            },
        );
        (result, seen)
    }

    #[test]
    fn results_come_in_the_order_of_the_source() {
        let (result, seen) = run(None);
        result.unwrap();
        assert_eq!(seen, (0..1000).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_ends_everything_and_is_the_one_reported() {
        let (result, seen) = run(Some(500));
        assert_eq!(result.unwrap_err(), "at 500");
        assert_eq!(seen.len(), 500);
    }

    #[test]
    fn steps_come_in_order_and_the_first_error_ends_them() {
        for len in [0, 1, 2, 999] {
            let mut seen = Vec::new();
            let map = |before: &mut Option<u64>, n: u64| {
                assert!(*before < Some(n), "each thread keeps its own, and gets what comes after");
                *before = Some(n);
                if n == 500 { Err(n) } else { Ok(n) }
            };
            let result = ordered_steps(len, map, |n| {
                seen.push(n);
                Ok(())
            });
            assert_eq!(result, if len > 500 { Err(500) } else { Ok(()) });
            assert_eq!(seen, (0..len.min(500)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nobody_is_further_ahead_of_the_sink_than_agreed_on() {
        let sunk = AtomicU64::new(0);
        let map = |_: &mut (), n: u64| {
            if n == 10 {
                // The other one has all the time to run ahead.
                thread::sleep(std::time::Duration::from_millis(50));
            }
            assert!(n < sunk.load(Ordering::SeqCst) + AHEAD, "{n}");
            Ok::<_, ()>(n)
        };
        ordered_steps(100, map, |n| {
            sunk.store(n + 1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
        assert_eq!(sunk.into_inner(), 100);
    }

    #[test]
    fn an_error_of_the_sink_ends_the_steps() {
        let mapped = AtomicU64::new(0);
        let map = |_: &mut (), n: u64| {
            mapped.fetch_add(1, Ordering::SeqCst);
            Ok(n)
        };
        let result = ordered_steps(1000, map, |n| if n == 3 { Err("full") } else { Ok(()) });
        assert_eq!(result, Err("full"));
        assert!(mapped.into_inner() <= 3 + 1 + AHEAD + WORKERS as u64);
    }

    #[test]
    fn a_panic_in_a_step_or_in_the_sink_ends_all_of_them() {
        for in_sink in [false, true] {
            let map = |_: &mut (), n: u64| {
                assert!(in_sink || n != 20, "in a step");
                Ok::<_, ()>(n)
            };
            let sink = |n| {
                assert!(!in_sink || n != 20, "in the sink");
                Ok(())
            };
            let run = || ordered_steps(1000, map, sink);
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        }
    }

    #[test]
    fn an_error_of_the_source_is_reported_after_what_came_before_it() {
        let mut seen = 0;
        let result = ordered_map(
            |feed| {
                feed.give(1).map_err(|_| "stopped")?;
                Err("source")
            },
            |n: u32| Ok(n),
            |n| {
                seen += n;
                Ok(())
            },
        );
        assert_eq!((result, seen), (Err("source"), 1));
    }
}
