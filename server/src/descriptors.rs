//! The limit of open files: each connection is one, and what most systems allow a program unless it asks
//! for more is 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the server needs beside its connections: repository, catalog, the runtime's own.
const OTHER_FILES: u64 = 512;

/// Raises the limit as far as the system lets it, and says so where that is not enough for
/// `connections_max`.
pub fn raise(connections_max: usize) {
    let wanted = (connections_max as u64).saturating_add(OTHER_FILES);
    let allowed = raised(wanted, getrlimit(Resource::Nofile));
    if allowed.is_some_and(|allowed| allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "the system allows fewer open files than connections_max needs: raise the hard limit \
             (LimitNOFILE= of a systemd unit, ulimit -Hn), or lower --connections-max"
        );
    }
}

/// Sets the limit to at least `wanted`, or to the most there may be; what holds then, `None` for no limit.
fn raised(wanted: u64, limit: Rlimit) -> Option<u64> {
    let now = limit.current?;
    let target = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if now >= target {
        return Some(now);
    }
    let set = setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum });
    Some(if set.is_ok() { target } else { now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_wanted_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        let wanted = before.current.unwrap_or(1024).min(before.maximum.unwrap_or(u64::MAX));
        let now = raised(wanted, before);
        assert!(now.is_none_or(|now| now >= wanted));
        assert_eq!(raised(1, getrlimit(Resource::Nofile)), getrlimit(Resource::Nofile).current);
        let most = raised(u64::MAX, getrlimit(Resource::Nofile));
        assert!(most.is_none_or(|most| Some(most) == before.maximum || most >= wanted));
    }
}
