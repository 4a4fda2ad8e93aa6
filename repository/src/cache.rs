//! A cache with a budget in bytes, in two generations: what was not used since the older one was
//! the young one goes first. Constant time, and no list to keep in order.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Maps keys to cheap clones (an `Arc`). Holds `bytes_max` at most, as the callers count them.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    bytes_max: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    young_bytes: usize,
    old: HashMap<K, (V, usize)>,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), young_bytes: 0, old: HashMap::new() };
        Cache { bytes_max, generations: Mutex::new(generations) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut all = self.lock();
        if let Some((value, _)) = all.young.get(key) {
            return Some(value.clone());
        }
        let (value, bytes) = all.old.remove(key)?;
        all.insert(key.clone(), value.clone(), bytes, self.bytes_max);
        Some(value)
    }

    /// Keeps `value`, which takes `bytes`, for as long as there is room.
    pub(crate) fn put(&self, key: K, value: V, bytes: usize) {
        if bytes <= self.bytes_max / 2 {
            let mut all = self.lock();
            all.old.remove(&key);
            all.insert(key, value, bytes, self.bytes_max);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<K, V>> {
        // Every change leaves the maps whole: a panic elsewhere does not make them wrong.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, bytes: usize, bytes_max: usize) {
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        if let Some((_, replaced)) = self.young.insert(key, (value, bytes)) {
            self.young_bytes -= replaced;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_keeps_what_is_used_and_stays_within_its_budget() {
        let cache = Cache::new(100);
        for n in 0..1000 {
            cache.put(n, n, 5);
            assert_eq!(cache.get(&0), Some(0));
            let all = cache.lock();
            assert!((all.young.len() + all.old.len()) * 5 <= 100);
        }
        assert_eq!(cache.get(&500), None);
        cache.put(7, 7, 51);
        assert_eq!(cache.get(&7), None);
    }
}
