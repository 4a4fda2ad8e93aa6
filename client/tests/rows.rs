//! What is asked of a server about rows, and what becomes of what it answers: the real program against a
//! server that says what the test wants, hostile things among them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

mod ended;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use ended::ended;

/// An answer: status, a header line or nothing, body.
type Answer = (u16, &'static str, String);

/// A server that answers every request by a function of its line and body, and keeps what it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    home: tempfile::TempDir,
}

impl Server {
    fn new(answer: impl Fn(&str, &Value) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&asked);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some((line, body)) = request(&stream) else { continue };
                let (status, header, text) = answer(&line, &body);
                keep.lock().unwrap().push((line, body));
                let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
                let head = format!("HTTP/1.1 {status} x\r\n{header}Connection: close\r\n\r\n");
                // A program that has read enough goes away in the middle.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
            }
        });
        Server { address, asked, home: tempfile::tempdir().unwrap() }
    }

    /// What there is in the folder that the program works in, but for what it keeps for itself.
    fn leavings(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.home.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| ![".config", ".local"].contains(&name.as_str())).collect()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        ended(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sqlrsync"));
        command.args(arguments).current_dir(self.home.path()).env_clear();
        command.env("HOME", self.home.path()).env("SQLRSYNC_SERVER", format!("ws://{}", self.address));
        command.env("SQLRSYNC_AUTH_TOKEN", "key");
        command
    }

    /// Exit code, stdout, stderr.
    fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.run(arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// The request's line without its version, and its body.
fn request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut len) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let body = if len == 0 { Value::Null } else { serde_json::from_slice(&body).ok()? };
    Some((line.rsplit_once(' ')?.0.to_owned(), body))
}

fn ok(body: Value) -> Answer {
    (200, "Content-Type: application/json", body.to_string())
}

fn conflict() -> Value {
    json!({
        "id": 3, "opened": "2026-03-01T11:58:00Z", "by": "ada", "tables": ["t"], "rows": 2, "state": "open",
        "theirs": 9,
    })
}

fn rows() -> Value {
    let row = |key: i64| {
        json!({
            "table": "t", "key": {"id": key}, "base": {"id": key, "a": "base"}, "theirs": {"id": key, "a": "theirs"},
            "mine": null, "differs": ["a"],
        })
    };
    json!({"rows": [row(1), row(2)], "next_after": null})
}

#[test]
fn a_settlement_names_the_rows_as_the_server_does_and_what_was_seen() {
    let server = Server::new(|line, _| match line {
        _ if line.ends_with("/settle") => ok(json!({"conflict": 3, "version": 10})),
        _ if line.contains("/rows") => ok(rows()),
        _ => ok(conflict()),
    });
    let resolve =
        ["resolve", "team/a.db", "3", "--row", "t:1=mine", "--keep", "theirs", "-m", "ours", "--json"];
    let (code, out, _) = server.said(&resolve);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["version"], 10);
    let (line, body) = server.asked().pop().unwrap();
    assert_eq!(line, "POST /api/v1/replicas/team/a.db/conflicts/3/settle");
    let row = json!({"table": "t", "key": {"id": 1}, "keep": "mine"});
    assert_eq!(body, json!({"keep": "theirs", "rows": [row], "message": "ours"}), "nothing was seen yet");

    let (code, out, _) = server.said(&["conflicts", "team/a.db", "3"]);
    assert!(code == 0 && out.contains("t:1  theirs changed it, mine deleted it"), "{out}");
    server.said(&resolve);
    assert_eq!(server.asked().pop().unwrap().1["latest"], 9);
    server.said(&resolve);
    assert!(server.asked().pop().unwrap().1.get("latest").is_none(), "it was settled");
}

#[test]
fn rows_that_are_not_there_or_not_named_are_said_before_anything_is_settled() {
    let server = Server::new(|line, _| if line.contains("/rows") { ok(rows()) } else { ok(conflict()) });
    let (code, _, said) = server.said(&["resolve", "team/a.db", "3", "--row", "t:7=mine"]);
    assert!(code == 2 && said.contains("has no row t:7"), "{said}");
    let (code, _, said) = server.said(&["resolve", "team/a.db", "3", "--row", "t:2=mine"]);
    assert!(code == 2 && said.contains("1 more row: t:1"), "{said}");
    assert!(server.asked().iter().all(|(line, _)| line.starts_with("GET ")));
}

#[test]
fn where_the_replica_has_moved_on_the_rows_are_shown_and_nothing_is_settled() {
    let server = Server::new(|line, _| match line {
        _ if line.ends_with("/settle") => (409, "X-Sqlrsync-Refusal: 3", "version 9 came meanwhile".into()),
        _ if line.contains("/rows") => ok(rows()),
        _ => ok(conflict()),
    });
    let (code, out, said) = server.said(&["resolve", "team/a.db", "3", "--keep", "mine"]);
    assert_eq!(code, 3);
    assert!(
        said.contains("nothing was settled: version 9 came meanwhile") && out.contains("t:2  "),
        "{said}{out}"
    );
    server.said(&["resolve", "team/a.db", "3", "--keep", "mine", "--json"]);
    let settle = server.asked().into_iter().rfind(|(line, _)| line.ends_with("/settle")).unwrap();
    assert_eq!(settle.1["latest"], 9, "what was shown is what the next settlement is about");
}

#[test]
fn a_server_that_never_ends_a_list_is_left_and_none_steers_the_terminal() {
    let server = Server::new(|line, _| {
        let mut hostile = conflict();
        hostile["by"] = "\u{1b}[2J\u{9b}2J".into();
        if line.contains("/rows") {
            let mut page = rows();
            page["rows"][0]["mine"] = json!({"a\u{1b}[2J": "\u{1b}[2J\u{202e}"});
            page["next_after"] = 1.into();
            return ok(page);
        }
        if line.contains("/conflicts/3") {
            ok(hostile)
        } else {
            ok(json!({"conflicts": [hostile], "next_after": 3}))
        }
    });
    for arguments in [
        &["conflicts", "team/a.db"][..],
        &["conflicts", "team/a.db", "3"],
        &["conflicts", "team/a.db", "3", "--json"],
    ] {
        let (code, out, _) = server.said(arguments);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(!out.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{out:?}");
    }
    assert!(server.asked().len() < 12);
}

#[test]
fn a_difference_that_could_not_be_finished_is_no_success() {
    let row = r#"{"table":"t","key":{"id":1},"op":"insert","before":null,"after":{"id":1}}"#;
    let failing = Server::new(move |_, _| (200, "", format!("{row}\n{}\n", json!({"error": "out of time"}))));
    let (code, out, said) = failing.said(&["diff", "team/a.db@1", "team/a.db@2", "--json"]);
    assert_eq!(code, 1);
    assert!(out.starts_with(row) && said.contains("out of time"), "{out}{said}");

    let nonsense = Server::new(|_, _| (200, "", "{\"table\":1}\n".into()));
    let (code, _, said) = nonsense.said(&["diff", "team/a.db@1", "team/a.db@2"]);
    assert!(code == 1 && said.contains("cannot be read"), "{said}");
}

#[test]
fn what_a_script_does_not_say_comes_behind_it_and_nothing_is_asked_twice() {
    let ends = |end: Value| {
        let end = format!("{end}\n");
        (200, "", format!("BEGIN;\nCOMMIT;\n{end}{:010}\n", end.len()))
    };
    let left_out = json!([{"table": "odd\u{1b}", "why": "for a reason"}]);
    let answers = [
        (json!({"differs": false, "left_out": [], "more_left_out": false}), 0, "nothing differs"),
        (json!({"differs": true, "left_out": left_out, "more_left_out": true}), 1, "odd : for a reason"),
    ];
    for (end, wanted, says) in answers {
        let server = Server::new(move |_, _| ends(end.clone()));
        for form in [&["--sql"][..], &["--changeset", "set.bin"]] {
            let diff = [&["diff", "team/a.db@1", "team/a.db@2", "--exit-code"], form].concat();
            let (code, out, said) = server.said(&diff);
            assert_eq!(code, wanted, "{said}");
            assert!(said.contains(says), "{said}");
            let set = || std::fs::read_to_string(server.home.path().join("set.bin")).unwrap();
            assert_eq!(if form.len() == 1 { out } else { set() }, "BEGIN;\nCOMMIT;\n");
            let asked = server.asked();
            assert!(asked.len() == 1 && asked[0].0.ends_with("&end=1"), "{asked:?}");
        }
    }
    // One that broke off, and one that is not ours.
    for body in
        ["BEGIN;\nCOMMIT;\n", "9999999999\n", "BEGIN;\n{\"differs\":1}\n0000000014\n", "x\n+000000001\n"]
    {
        let server = Server::new(move |_, _| (200, "", body.into()));
        let (code, _, said) = server.said(&["diff", "team/a.db@1", "team/a.db@2", "--changeset", "set.bin"]);
        assert!(code == 1 && said.contains("cannot be read"), "{said}");
        assert!(!server.home.path().join("set.bin").exists());
    }
}

#[test]
fn a_script_or_changeset_that_could_not_be_finished_says_why_and_is_not_taken_for_one() {
    for (refusal, code) in [(2, 1), (5, 5)] {
        let end = json!({"error": "out of time\u{1b}", "refusal": refusal});
        let end = format!("{end}\n");
        let body = format!("BEGIN;\nDELETE FROM t;\n{end}{:010}\n", end.len());
        let server = Server::new(move |_, _| (200, "", body.clone()));
        let versions = ["diff", "team/a.db@1", "team/a.db@2"];
        let (got, out, said) = server.said(&[&versions[..], &["--sql"]].concat());
        assert!(got == code && said.contains("out of time\n"), "{got} {said}");
        assert!(!out.contains("COMMIT") && !out.contains("error"), "{out}");
        let (got, _, said) = server.said(&[&versions[..], &["--changeset", "set.bin"]].concat());
        assert!(got == code && said.contains("out of time\n"), "{got} {said}");
        assert_eq!(server.leavings(), [""; 0]);
    }
}

#[test]
fn a_connection_that_breaks_leaves_no_changeset_and_no_end_of_a_script() {
    // The end of a script is there, and then the connection ends before what comes behind.
    let body = format!("BEGIN;\n{}COMMIT;\n", "DELETE FROM t;\n".repeat(20_000));
    let server = Server::new(move |_, _| (200, "Content-Length: 1000000", body.clone()));
    let versions = ["diff", "team/a.db@1", "team/a.db@2"];
    let (code, out, said) = server.said(&[&versions[..], &["--sql"]].concat());
    assert_eq!(code, 5, "{said}");
    assert!(out.starts_with("BEGIN;\n") && !out.contains("COMMIT"), "{}", out.len());
    let (code, _, said) = server.said(&[&versions[..], &["--changeset", "set.bin"]].concat());
    assert_eq!(code, 5, "{said}");
    assert_eq!(server.leavings(), [""; 0]);
}

#[test]
fn one_that_is_stopped_while_the_server_is_silent_leaves_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::new(|_, _| unreachable!());
    let mut command = server.command(&["diff", "team/a.db@1", "team/a.db@2", "--changeset", "set.bin"]);
    command.env("SQLRSYNC_SERVER", format!("ws://{}", silent.local_addr().unwrap())).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut stream, _) = silent.accept().unwrap();
    request(&stream).unwrap();
    stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 1000000\r\n\r\nBEGIN;\n").unwrap();
    while server.leavings().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let ended = loop {
        // The first stops it, the second ends it where it does not.
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        std::thread::sleep(std::time::Duration::from_millis(100));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
    };
    assert_eq!(ended.code(), Some(130));
    assert_eq!(server.leavings(), [""; 0]);
}

#[test]
fn the_log_with_rows_is_one_request_a_page() {
    let page = |versions: Value, next: Value| ok(json!({"versions": versions, "next_before": next}));
    let rows = json!({"t": {"insert": 2, "update": 0, "delete": 1}});
    let server = Server::new(move |line, _| match line {
        // It had no time for more than one.
        _ if !line.contains("before=") => page(json!([{"version": 3, "rows": rows}]), 3.into()),
        _ => page(json!([{"version": 2, "rows": null}, {"version": 1, "rows": null}]), Value::Null),
    });
    let (code, out, _) = server.said(&["log", "team/a.db", "--stat"]);
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert_eq!((code, lines[2], lines[6]), (0, "t  +2 -1", "the first version"), "{out}");
    let asked: Vec<_> = server.asked().into_iter().map(|(line, _)| line).collect();
    let path = "GET /api/v1/replicas/team/a.db/versions";
    assert_eq!(
        asked,
        [format!("{path}?limit=100&stat=true"), format!("{path}?limit=100&before=3&stat=true")]
    );
}

#[test]
fn versions_counted_from_the_latest_are_asked_for_by_number() {
    let server = Server::new(|line, _| match line {
        _ if line.contains("/status") => ok(json!({"latest": 9})),
        _ if line.contains("stat=1") => {
            ok(json!({"rows": {"t": {"insert": 2, "update": 0, "delete": 1}}, "schema": 0}))
        }
        _ => ok(json!({"version": 9, "columns": ["a", "b"], "rows": [[1, "x"]], "more": false})),
    });
    let (code, out, _) = server.said(&["diff", "team/a.db@latest-2", "team/a.db", "--stat"]);
    assert_eq!((code, out.lines().last()), (0, Some("t             2        0        1")));
    assert!(server.asked().pop().unwrap().0.ends_with("/diff?from=7&to=9&stat=1"));
    let (code, out, _) = server.said(&["query", "team/a.db", "select * from t"]);
    assert_eq!((code, out.as_str()), (0, "a  b\n1  x\n"));
    assert_eq!(server.asked().pop().unwrap().1, json!({"version": 9, "sql": "select * from t"}));
}
