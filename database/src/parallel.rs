//! A source, some workers and a sink, each on a thread of its own, with short queues in between: work
//! is done in parallel, results come in the order of the source, and memory stays bounded.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
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

/// Runs `map` for the numbers below `len` on [`WORKERS`] threads, which take them in turns and keep
/// something of their own in between, and `sink` on the calling one in the numbers' order. The first error
/// ends all of them.
pub(crate) fn ordered_steps<S, R, E>(
    len: u64,
    map: impl Fn(&mut S, u64) -> Result<R, E> + Sync,
    sink: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    S: Default,
    R: Send,
    E: Send,
{
    thread::scope(|scope| {
        let mut results = Vec::with_capacity(WORKERS);
        for worker in 0..WORKERS as u64 {
            let (put, get) = sync_channel(QUEUE);
            results.push(get);
            let map = &map;
            scope.spawn(move || {
                let mut own = S::default();
                for number in (worker..len).step_by(WORKERS) {
                    let result = map(&mut own, number);
                    let failed = result.is_err();
                    if put.send(result).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drain(results, sink)
    })
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
            let map = |before: &mut u64, n: u64| {
                *before += 1;
                // Each thread gets every second number.
                assert_eq!(*before, n / WORKERS as u64 + 1);
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
