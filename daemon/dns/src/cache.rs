//! Answers of upstream servers, kept for as long as they say. Pure; time comes from outside.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::message::age;

/// Answers kept for one container.
const CAPACITY: usize = 512;

type Key = (String, u16, u8);

#[derive(Debug)]
struct Kept {
    packet: Vec<u8>,
    since: Instant,
    until: Instant,
}

/// What one container was told.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: HashMap<Key, Kept>,
}

impl Cache {
    /// The answer to a question, with its age taken off.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Vec<u8>> {
        let kept = self.kept.get(key).filter(|kept| kept.until > now)?;
        let mut packet = kept.packet.clone();
        let seconds = now.saturating_duration_since(kept.since).as_secs();
        age(&mut packet, u32::try_from(seconds).unwrap_or(u32::MAX));
        Some(packet)
    }

    /// Keeps an answer for `ttl` seconds.
    pub(crate) fn put(&mut self, key: Key, packet: &[u8], ttl: u32, now: Instant) {
        if ttl == 0 {
            return;
        }
        if self.kept.len() >= CAPACITY {
            self.kept.retain(|_, kept| kept.until > now);
        }
        if self.kept.len() >= CAPACITY {
            // All are fresh: somebody asks for everything. Begin anew rather than keep an order of use.
            self.kept.clear();
        }
        let until = now + Duration::from_secs(u64::from(ttl));
        self.kept.insert(key, Kept { packet: packet.to_vec(), since: now, until });
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use domain::base::iana::Rtype;

    use super::*;
    use crate::message::tests::query;

    #[test]
    fn answers_end_with_their_time_and_the_cache_has_an_end() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let key = |n: usize| (format!("n{n}"), 1, 0);
        cache.put(key(0), &query("n0", Rtype::A, None), 10, now);
        cache.put(key(1), &query("n1", Rtype::A, None), 0, now);
        assert!(cache.get(&key(0), now + Duration::from_secs(9)).is_some());
        assert!(cache.get(&key(0), now + Duration::from_secs(10)).is_none());
        assert!(cache.get(&key(1), now).is_none());
        for n in 0..3 * CAPACITY {
            cache.put(key(n), &[], 10, now);
        }
        assert!(cache.kept.len() <= CAPACITY);
    }
}
