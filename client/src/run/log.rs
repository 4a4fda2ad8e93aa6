//! The versions of a replica, as the server's REST API lists them: a table, or an object a line.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlrsync_protocol::text::printable;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Run;
use crate::connect::{percent_encode, refused};
use crate::error::Error;
use crate::outcome::bytes_text;
use crate::plan::{Access, Log};
use crate::prompt::ask_for_key;
use crate::wire::tls;
use sqlrsync_protocol::exchange::Refusal;

/// The longest answer that is read at once, in bytes: it holds [`PAGE_MAX`] versions.
const ANSWER_LEN_MAX: u64 = 16 << 20;

/// How many versions are asked for at once.
const PAGE_MAX: u32 = 500;

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The answer: versions, newest first.
#[derive(Debug, Deserialize)]
struct Answer {
    versions: Vec<Version>,
}

/// A version, with whatever else the server says about it.
#[derive(Debug, Serialize, Deserialize)]
struct Version {
    version: u64,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

impl Version {
    fn text(&self, name: &str) -> String {
        printable(self.more.get(name).and_then(Value::as_str).unwrap_or_default())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.more.get(name).and_then(Value::as_u64)
    }

    /// The columns: number, time, who, pages and bytes changed, message.
    fn row(&self) -> [String; 6] {
        let time = self.text("time");
        let local =
            time.parse::<jiff::Timestamp>().map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        [
            self.version.to_string(),
            local.unwrap_or(time),
            self.text("author"),
            self.number("pages_changed").map(|pages| pages.to_string()).unwrap_or_default(),
            self.number("bytes_stored").map(bytes_text).unwrap_or_default(),
            self.text("message"),
        ]
    }
}

pub fn list(run: &Run, plan: &Log) -> Result<(), Error> {
    let mut access = plan.access.clone();
    run.warn_of_plain_text(&access);
    let agent = agent(&access)?;
    let mut left = plan.limit;
    let mut before = None;
    let mut printer = Printer { json: run.output.json, out: io::stdout().lock(), header: false };
    loop {
        let count = left.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        if count == 0 || run.cancel.is_cancelled() {
            return Ok(());
        }
        let versions = match fetch(&agent, &access, plan, before, count) {
            Err(Error::Refused { refusal: Refusal::NotAllowed, .. }) if access.credential.is_none() => {
                access.credential = Some(ask_for_key("pull", &plan.remote.to_string())?);
                continue;
            }
            fetched => fetched?,
        };
        if !printer.print(&versions)? {
            return Ok(());
        }
        let oldest = versions.last().map(|version| version.version);
        // A server that does not come down to older versions would keep us here for ever.
        match oldest {
            Some(oldest) if oldest > 1 && before.is_none_or(|before| oldest < before) => {
                before = Some(oldest)
            }
            _ => return Ok(()),
        }
        left = left.map(|left| left.saturating_sub(versions.len() as u32));
    }
}

fn agent(access: &Access) -> Result<ureq::Agent, Error> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(ANSWER_MAX))
        .user_agent(concat!("sqlrsync/", env!("CARGO_PKG_VERSION")));
    if access.server.tls() {
        let trusted = tls::certificates(access.ca_file.as_deref())?;
        let roots = trusted.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
        let roots = RootCerts::new_with_certs(&roots.collect::<Vec<_>>());
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().new_agent())
}

fn fetch(
    agent: &ureq::Agent,
    access: &Access,
    plan: &Log,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<Version>, Error> {
    let server = &access.server;
    let path = format!("/api/v1/replicas/{}/versions", percent_encode(&plan.remote.to_string()));
    let mut request = agent.get(server.http(&path)).query("limit", count.to_string());
    if let Some(before) = before {
        request = request.query("before", before.to_string());
    }
    if let Some(found) = &access.credential {
        request = request.header("Authorization", found.key.secret());
    }
    let mut response = request.call().map_err(|error| unanswered(access, &error))?;
    let body = response.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec();
    let body = body.map_err(|error| unanswered(access, &error))?;
    if !response.status().is_success() {
        return Err(refused(server, response.status(), response.headers(), &body));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| Error::NotThisServer {
        server: server.to_string(),
        why: format!("its list of versions cannot be read ({error})"),
    })?;
    Ok(answer.versions)
}

fn unanswered(access: &Access, error: &ureq::Error) -> Error {
    let (server, why) = (access.server.to_string(), error.to_string());
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Error::Tls { server, why },
        ureq::Error::Protocol(_) | ureq::Error::BodyExceedsLimit(_) => Error::NotThisServer { server, why },
        _ => Error::Unreachable { server, why },
    }
}

/// Prints versions as they come.
struct Printer<W> {
    json: bool,
    out: W,
    header: bool,
}

/// Widths of the columns before the last.
const WIDTHS: [usize; 5] = [7, 23, 16, 9, 10];

impl<W: Write> Printer<W> {
    /// False where nobody reads any more.
    fn print(&mut self, versions: &[Version]) -> Result<bool, Error> {
        match versions.iter().try_for_each(|version| self.line(version)).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).map_err(Error::Output),
        }
    }

    fn line(&mut self, version: &Version) -> io::Result<()> {
        if self.json {
            return writeln!(self.out, "{}", serde_json::to_string(version)?);
        }
        if !self.header {
            self.header = true;
            let names = ["version", "time", "who", "pages", "bytes", "message"];
            self.columns(&names.map(str::to_owned))?;
        }
        self.columns(&version.row())
    }

    fn columns(&mut self, columns: &[String; 6]) -> io::Result<()> {
        let [number, time, who, pages, bytes, message] = columns;
        let [a, b, c, d, e] = WIDTHS;
        let line = format!("{number:>a$}  {time:b$}  {who:c$}  {pages:>d$}  {bytes:>e$}  {message}");
        writeln!(self.out, "{}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"versions":[
        {"version":2,"time":"2026-01-02T03:04:05.6Z","author":"ada","message":"two\u001b[2J","pages_changed":3,"bytes_stored":9100},
        {"version":1,"time":"2026-01-01T00:00:00Z","author":"ada","message":"","pages_changed":100,"bytes_stored":400000}]}"#;

    fn printed(json: bool) -> String {
        let answer: Answer = serde_json::from_str(ANSWER).unwrap();
        let mut printer = Printer { json, out: Vec::new(), header: false };
        assert!(printer.print(&answer.versions).unwrap());
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn a_table_for_people_that_no_message_can_break() {
        let text = printed(false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("2026-01-02 03:04:05 UTC") && lines[1].contains("9.1 KB"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn an_object_a_line_for_programs() {
        let text = printed(true);
        let versions: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["version"].as_u64().unwrap())
            .collect();
        assert_eq!(versions, [2, 1]);
        assert!(!text.contains('\x1b'));
    }
}
