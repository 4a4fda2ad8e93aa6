//! The versions of a replica beside the origin that they were pushed from: each one a committed state
//! ([`chain`]), all in order, none lost, none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::chain;
use crate::client::Client;
use crate::server::Server;

/// What a pusher knows of the versions that it has made.
#[derive(Debug, Default)]
pub struct History {
    /// The state that each acknowledged version has.
    acknowledged: BTreeMap<u64, u32>,
}

impl History {
    /// Takes in what a push of this state said.
    ///
    /// # Panics
    /// Where the version was another state before.
    #[track_caller]
    pub fn pushed(&mut self, said: &Value, state: u32) {
        let version = said["version"].as_u64().unwrap_or_else(|| panic!("no version in {said}"));
        let before = self.acknowledged.insert(version, state);
        assert!(before.is_none_or(|before| before == state), "version {version} is two states");
    }

    /// The newest version that was acknowledged; 0 where none was.
    pub fn latest(&self) -> u64 {
        self.acknowledged.keys().next_back().copied().unwrap_or(0)
    }

    /// The replica's versions are what was acknowledged, in order, each once, and the newest is `last`.
    /// Returns how many there are.
    ///
    /// # Panics
    /// Where it is not so.
    pub fn assert_whole(&self, server: &Server, remote: &str, last: u32) -> u64 {
        assert!(server.check(), "check finds damage");
        let client = Client::admin(server);
        let log = client.run(&["log", remote, "--json"]).ok().stdout;
        let mut numbers: Vec<u64> =
            log.lines().map(|line| number(line)["version"].as_u64().unwrap()).collect();
        numbers.reverse();
        let count = numbers.len() as u64;
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "the numbers have no gap");
        let mut states = Vec::new();
        for version in numbers {
            let copy = format!("version-{version}.db");
            client.run(&[&*format!("{remote}@{version}"), &copy]).ok();
            let state = chain::state(&client.path(&copy));
            if let Some(acknowledged) = self.acknowledged.get(&version) {
                assert_eq!(state, *acknowledged, "version {version} is what was acknowledged as it");
            }
            states.push(state);
        }
        // Strictly: a version with the state of the one before would be that push a second time.
        assert!(states.is_sorted_by(|one, next| one < next), "{states:?}");
        assert_eq!(states.last(), Some(&last), "the newest version is the origin");
        let known = self.latest();
        assert!(count >= known, "version {known} was acknowledged, and there are {count}");
        count
    }
}

fn number(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// No two versions on the server were made by one push.
///
/// # Panics
/// Where two were.
pub fn assert_push_ids_differ(server: &Server) {
    let mut ids = BTreeSet::new();
    for path in manifests(&server.data()) {
        let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let object = &text[text.find('{').expect("a manifest is an object")..];
        let manifest: Value = serde_json::from_str(object).unwrap();
        let replica = manifest["replica"].as_str().unwrap().to_owned();
        if let Some(id) = manifest["push_id"].as_str() {
            assert!(ids.insert((replica, id.to_owned())), "{} repeats a push", path.display());
        }
    }
    assert!(!ids.is_empty(), "there are push ids to compare");
}

/// Every manifest below a folder.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("manifests")) {
            found.push(path);
        }
    }
    found
}
