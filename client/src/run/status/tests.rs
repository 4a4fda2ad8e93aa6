//! What people see of a status, in a terminal of 80 columns and in a pipe.

use super::*;

const ANSWER: &str = r#"{
    "replica": "team/app.db", "latest": 12, "latest_time": "2026-03-01T11:58:00Z", "now": "2026-03-01T12:00:00Z",
    "later": true,
    "clients": [
        {"client_id": "2f6b1c88d0aa41d2", "host": "backup-machine-with-a-long-name.example.org",
         "last_push": null, "last_pull": "2026-03-01T11:59:30Z", "last_pull_version": 12, "push_due": null,
         "overdue": false, "following": true, "errors": []},
        {"client_id": "91e0", "host": "laptop\u001b[2J", "last_push": "2026-03-01T11:58:00Z", "last_push_version": 12,
         "last_pull": "2026-02-20T12:00:00Z", "last_pull_version": 3, "push_due": "2026-03-01T12:04:10Z",
         "overdue": false, "errors": []},
        {"client_id": "77aa0e33c1", "host": "desk", "last_push": "2026-03-01T08:00:00Z", "last_push_version": 9,
         "last_pull": null, "push_due": "2026-03-01T11:48:00Z", "overdue": true, "errors": [
            {"error": "the server cannot be reached:\u001b]0;x\u0007 connection refused by the firewall of the office, which somebody has to open",
             "attempts": 6, "since": "2026-03-01T11:48:05Z", "reported": "2026-03-01T11:55:00Z",
             "host": "desk", "local_path": "/srv/data/app.db"}]}
    ]}"#;

fn lines(answer: &str, width: Option<usize>) -> Vec<String> {
    serde_json::from_str::<Known>(answer).unwrap().lines("team/app.db", width)
}

#[test]
fn a_table_that_fits_a_terminal_and_has_first_who_needs_attention() {
    assert_eq!(
        lines(ANSWER, Some(80)),
        [
            "team/app.db: version 12, 2 min ago (2026-03-01 11:58:00 UTC)",
            "",
            "host                     client     last push      last pull      now",
            "desk                     77aa0e33…  v9 4 h ago     -              overdue 12 min",
            "backup-machine-with-a-…  2f6b1c88…  -              v12 30 s ago   follows",
            "laptop [2J               91e0       v12 2 min ago  v3 9 days ago  push in 4 min",
            "",
            "failing",
            "  desk /srv/data/app.db: 6 attempts, failing for 11 min, reported 5 min ago",
            "    the server cannot be reached: ]0;x connection refused by the firewall of the",
            "    office, which somebody has to open",
        ]
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_none_can_steer_it() {
    let hostile =
        ANSWER.replace("91e0", &"i".repeat(255)).replace("/srv/data/app.db", &"p/\u{202e}".repeat(500));
    for width in [60, 80, 200] {
        for line in lines(&hostile, Some(width)) {
            assert!(line.chars().count() <= width, "{width}: {line}");
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }
}

#[test]
fn what_goes_into_a_pipe_is_not_cut() {
    let lines = lines(ANSWER, None);
    assert!(lines.iter().any(|line| line.starts_with("backup-machine-with-a-long-name.example.org  ")));
    assert!(lines.iter().any(|line| line.ends_with("which somebody has to open")));
}

#[test]
fn a_replica_without_versions_or_without_the_right_to_see_clients_says_so() {
    assert_eq!(lines(r#"{"latest": null, "clients": []}"#, None), ["team/app.db: no version yet"]);
    let hidden = lines(r#"{"latest": 3, "clients": []}"#, None);
    assert_eq!(hidden, ["team/app.db: version 3", "clients are shown to who has a key for this replica"]);
}

#[test]
fn a_client_does_one_thing_or_several() {
    let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let due = Some(now - jiff::SignedDuration::from_secs(3));
    let doing = |client: Client| client.doing(now);
    assert_eq!(doing(Client::default()), "");
    assert_eq!(doing(Client { errors: vec![Failure::default()], ..Client::default() }), "failing");
    assert_eq!(doing(Client { push_due: due, ..Client::default() }), "push due");
    assert_eq!(doing(Client { push_due: due, pushing: true, overdue: true, ..Client::default() }), "pushing");
    assert_eq!(
        doing(Client { push_due: due, overdue: true, following: true, ..Client::default() }),
        "overdue 3 s, follows"
    );
}

#[test]
fn times_are_said_in_their_largest_unit() {
    let said = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span);
    assert_eq!(said, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
}
