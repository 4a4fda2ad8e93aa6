//! Tests of the repository through its public interface, as one program.
//!
//! | file | shows |
//! |---|---|
//! | `support.rs` | a model of a database, an origin of any shape, stores that fail |
//! | `versions.rs` | versions come back, differences are right, push ids, races, limits |
//! | `kept.rs` | a push that is received and not committed: candidates |
//! | `ahead.rs` | blocks that are decoded ahead |
//! | `sides.rs` | two sides of a merge, for the tests that need them |
//! | `merged.rs` | merges: one outcome, whoever is first |
//! | `conflicts.rs` | the same of conflicts, what is added to them, and their ends |
//! | `beside.rs` | client records and what is worked out about a version |
//! | `swept.rs` | what merging leaves goes in time |
//! | `two_servers.rs` | two servers that work on the same pushes |
//! | `older.rs` | the older protocol: pages in any order, hashes without reading pages |
//! | `conversation.rs` | pushes and pulls through the conversations of every version |
//! | `resume.rs` | a cut push is continued |
//! | `damage.rs` | every flipped byte is noticed; missing, cut and swapped objects |
//! | `damage_merging.rs` | the same of what merging keeps |
//! | `gaps.rs` | what is missing is damage: nothing is swept, read or committed then |
//! | `crash.rs` | a store that stops at any step, a process that is killed at any time, sweeping |
//! | `crash_merging.rs` | the same of merges and conflicts |
//! | `cost.rs` | what a version costs in bytes, reads and memory |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod ahead;
mod beside;
mod conflicts;
mod conversation;
mod cost;
mod crash;
mod crash_merging;
mod damage;
mod damage_merging;
mod gaps;
mod kept;
mod merged;
mod older;
mod resume;
mod sides;
mod small_pushes;
mod support;
mod swept;
mod two_servers;
mod versions;
