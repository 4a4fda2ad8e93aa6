//! What came of a run, in a sentence for people or an object for programs.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use sqlrsync_protocol::text::{ReplicaIdText, is_unseen, printable};

use crate::error::Error;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A server has a new version.
    Pushed,
    /// A local file has become a version.
    Pulled,
    /// Both sides had the same.
    Unchanged,
    /// A file has become a copy of another, here or on another machine.
    Copied,
    /// A server has a new version, which holds what was pushed and what others had pushed before.
    Merged,
    /// A server keeps what was pushed and has made no version of it: rows overlap with what others pushed.
    Conflict,
}

/// What came of a transfer. As JSON, the last line of stdout.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What happened; with `dry`, what would happen.
    #[serde(rename = "outcome")]
    pub kind: Kind,
    /// The version that both sides now have, or that the merge is; `None` where there are no versions.
    pub version: Option<u64>,
    /// The conflict that waits to be settled; of a pull, in which the changes wait that the file had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<u64>,
    /// With `--merge`, where there was something to pull: whether the file now has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled: Option<bool>,
    /// Pages that went out.
    pub pages_sent: u64,
    /// Pages that came in.
    pub pages_received: u64,
    /// Bytes that went out, with everything that the connection adds to them.
    pub bytes_sent: u64,
    /// Bytes that came in.
    pub bytes_received: u64,
    /// From beginning to end.
    pub seconds: f64,
    /// The database here.
    pub local: String,
    /// The replica or the file there; `None` where the server has not named it yet.
    pub remote: Option<String>,
    /// The replica's id, where the server said it.
    #[serde(skip)]
    pub replica_id: Option<ReplicaIdText>,
    /// Nothing was changed.
    pub dry: bool,
    /// Whether the whole of the file here was read to be sent: its WAL did not say what changed, or most
    /// of it did. `None` where nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned: Option<bool>,
    /// The bytes are the most that it can be.
    #[serde(skip)]
    pub at_most: bool,
    /// The newest version, where it is not the one that this file has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<u64>,
    /// The push went on top of a version that this file was not made from.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overtook: bool,
    /// What the server wants to be shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
}

impl Outcome {
    /// One with nothing moved.
    pub fn new(kind: Kind, local: String, remote: Option<String>) -> Outcome {
        Outcome {
            kind,
            version: None,
            conflict: None,
            pulled: None,
            pages_sent: 0,
            pages_received: 0,
            bytes_sent: 0,
            bytes_received: 0,
            seconds: 0.0,
            local,
            remote,
            replica_id: None,
            dry: false,
            scanned: None,
            at_most: false,
            latest: None,
            overtook: false,
            messages: Vec::new(),
        }
    }

    /// The sentence.
    pub fn sentence(&self) -> String {
        let local = printable(&self.local);
        let remote = printable(self.remote.as_deref().unwrap_or("the server"));
        let would = if self.dry { "would have " } else { "" };
        let version = self.version.map(|version| format!(" version {version}")).unwrap_or_default();
        let what = match self.kind {
            Kind::Merged | Kind::Conflict => return self.meeting(&local, &remote),
            Kind::Unchanged if self.version.is_none() && self.latest.is_some() => {
                return format!("unchanged: {local} has nothing that {remote} does not have");
            }
            Kind::Unchanged if self.version.is_some() => {
                format!("unchanged: {local} is{version} of {remote}")
            }
            Kind::Unchanged => format!("unchanged: {local} and {remote} have the same content"),
            Kind::Pushed if self.version.is_some() => {
                format!("{would}pushed {local} to {remote} as{version}")
            }
            Kind::Pushed => format!("{would}pushed {local} to {remote}"),
            Kind::Pulled => format!("{would}pulled{version} of {remote} into {local}"),
            Kind::Copied if self.pages_received > 0 && self.pages_sent == 0 => {
                format!("{would}copied {remote} to {local}")
            }
            Kind::Copied => format!("{would}copied {local} to {remote}"),
        };
        if self.kind == Kind::Unchanged {
            return what;
        }
        format!("{what}: {} in {}", self.moved(), seconds(self.seconds))
    }

    /// The sentence where others pushed meanwhile.
    fn meeting(&self, local: &str, remote: &str) -> String {
        let (moved, seconds) = (self.moved(), seconds(self.seconds));
        if self.kind == Kind::Conflict {
            let number = self.conflict.unwrap_or_default();
            return format!(
                "conflict {number} in {remote}: what {local} changes does not go together with what others have \
                 pushed; nothing is published, and what was pushed is kept ({moved} in {seconds}): \
                 sqlrsync conflicts {remote} {number} shows why"
            );
        }
        let version = self.version.map(|version| format!(" as version {version}")).unwrap_or_default();
        let then = match self.pulled {
            Some(true) => format!("{local} now has their changes, too"),
            _ => format!(
                "this file does not have their changes: sqlrsync {remote} {local} pulls them, --merge does both"
            ),
        };
        format!(
            "merged{version} of {remote}: others had pushed since {local} was in step with it; {then} \
             ({moved} in {seconds})"
        )
    }

    fn moved(&self) -> String {
        // A copy over a wire of memory counts the same pages on both ends.
        let (pages, bytes, way) = if self.pages_sent >= self.pages_received {
            (self.pages_sent, self.bytes_sent, "sent")
        } else {
            (self.pages_received, self.bytes_received, "received")
        };
        let plural = if pages == 1 { "" } else { "s" };
        let at_most = if self.at_most { "at most " } else { "" };
        format!("{pages} page{plural}, {at_most}{} {way}", bytes_text(bytes))
    }

    /// Sentences about what is worth knowing besides.
    pub fn notes(&self) -> Vec<String> {
        let told = self.messages.iter().filter(|text| !self.is_repeated_by(text));
        let mut notes: Vec<_> = told.map(|text| format!("server: {}", printable(text))).collect();
        if self.overtook && self.kind == Kind::Pushed {
            let remote = printable(self.remote.as_deref().unwrap_or_default());
            notes.push(format!(
                "note: others pushed since this file was last in step with {remote}; \
                 this version stands on top and does not have their changes"
            ));
        }
        if let (Kind::Conflict, Some(number), Some(remote)) = (self.kind, self.conflict, &self.remote) {
            let remote = printable(remote);
            notes.push(format!("note: sqlrsync resolve {remote} {number} --keep theirs|mine settles it"));
        }
        if let (Kind::Pulled, Some(number), Some(remote)) = (self.kind, self.conflict, &self.remote) {
            let (local, remote) = (printable(&self.local), printable(remote));
            notes.push(format!(
                "note: what was pushed from {local} is not in it; it is kept in conflict {number} of {remote}"
            ));
        }
        if let (Some(false), Some(remote)) = (self.pulled, &self.remote) {
            notes.push(format!(
                "note: {} was written to meanwhile and is left as it is; the next push with --merge brings both \
                 in step ({})",
                printable(&self.local),
                printable(remote)
            ));
        }
        if let (Some(latest), Some(remote), None) = (self.latest, &self.remote, self.pulled) {
            let (local, remote) = (printable(&self.local), printable(remote));
            notes.push(format!(
                "note: {remote} has version {latest}; sqlrsync {remote} {local} pulls it, \
                 and a push with --force makes this one the newest"
            ));
        }
        notes
    }

    /// Whether a text of the server says no more than the sentence does: servers name the version for
    /// clients that do not.
    fn is_repeated_by(&self, text: &str) -> bool {
        let Some(remote) = &self.remote else { return false };
        let says = |what: &str, number: Option<u64>| {
            number.is_some_and(|number| text.contains(&format!("{what} {number} of {remote}")))
        };
        says("version", self.version)
            || says("version", self.latest)
            || (self.kind == Kind::Conflict && says("conflict", self.conflict))
    }

    /// Prints it: the last line of stdout is the sentence, or the object.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn print(&self, json: bool, quiet: bool) -> Result<(), Error> {
        if !quiet {
            self.notes().iter().for_each(|note| eprintln!("{note}"));
        }
        if json {
            print_json(self)
        } else if quiet {
            Ok(())
        } else {
            print_line(&self.sentence())
        }
    }
}

/// Prints an object as a line of its own.
///
/// # Errors
/// Where stdout cannot be written. That nobody reads any more is no error.
pub fn print_json(object: &impl Serialize) -> Result<(), Error> {
    print_line(&json_text(object)?)
}

/// An object as one line of JSON. What a terminal could obey, or what cannot be seen, is escaped: much of it
/// comes from elsewhere.
///
/// # Errors
/// Where it cannot be JSON.
pub fn json_text(object: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string(object).map_err(|error| Error::Output(error.into()))?;
    if !text.chars().any(is_unseen) {
        return Ok(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unseen(c) {
            // Such characters stand in strings only, where the escape means the same.
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        } else {
            escaped.push(c);
        }
    }
    Ok(escaped)
}

/// Prints a line.
///
/// # Errors
/// As [`print_json`].
pub fn print_line(line: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Output),
    }
}

/// A number of bytes as people say it, in powers of ten.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn seconds(seconds: f64) -> String {
    let duration = Duration::from_secs_f64(seconds.max(0.0));
    if duration.as_secs() < 10 {
        format!("{seconds:.2} s")
    } else if duration.as_secs() < 120 {
        format!("{seconds:.0} s")
    } else {
        format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed() -> Outcome {
        let mut outcome = Outcome::new(Kind::Pushed, "app.db".into(), Some("team/app.db".into()));
        (outcome.version, outcome.pages_sent, outcome.bytes_sent) = (Some(3), 12, 9100);
        outcome.seconds = 0.081;
        outcome
    }

    #[test]
    fn a_push_in_a_sentence() {
        assert_eq!(
            pushed().sentence(),
            "pushed app.db to team/app.db as version 3: 12 pages, 9.1 KB sent in 0.08 s"
        );
    }

    #[test]
    fn json_has_the_fields_that_scripts_rely_on() {
        let json = serde_json::to_value(pushed()).unwrap();
        assert_eq!(json["outcome"], "pushed");
        assert_eq!(json["version"], 3);
        for field in ["pages_sent", "pages_received", "bytes_sent", "bytes_received"] {
            assert!(json[field].is_u64(), "{field}");
        }
    }

    #[test]
    fn what_others_pushed_is_said() {
        let mut outcome = pushed();
        outcome.overtook = true;
        assert!(outcome.notes()[0].contains("does not have their changes"));
        let mut outcome = Outcome::new(Kind::Unchanged, "app.db".into(), Some("team/app.db".into()));
        (outcome.version, outcome.latest) = (Some(3), Some(5));
        assert_eq!(outcome.sentence(), "unchanged: app.db is version 3 of team/app.db");
        assert!(outcome.notes()[0].contains("version 5"));
    }

    #[test]
    fn a_merge_is_said_with_what_the_file_does_not_have() {
        let mut outcome = pushed();
        (outcome.kind, outcome.version) = (Kind::Merged, Some(10));
        let sentence = outcome.sentence();
        assert!(sentence.starts_with("merged as version 10 of team/app.db: others had pushed"), "{sentence}");
        assert!(sentence.contains("does not have their changes: sqlrsync team/app.db app.db pulls them"));
        assert_eq!(serde_json::to_value(&outcome).unwrap()["outcome"], "merged");

        outcome.pulled = Some(true);
        assert!(outcome.sentence().contains("app.db now has their changes"), "{}", outcome.sentence());
        outcome.pulled = Some(false);
        assert!(outcome.sentence().contains("does not have their changes"));
        assert!(outcome.notes()[0].contains("written to meanwhile"), "{:?}", outcome.notes());
    }

    #[test]
    fn a_conflict_is_said_with_its_number_and_what_to_do() {
        let mut outcome = pushed();
        (outcome.kind, outcome.version, outcome.conflict) = (Kind::Conflict, None, Some(3));
        let sentence = outcome.sentence();
        assert!(sentence.starts_with("conflict 3 in team/app.db"), "{sentence}");
        assert!(
            sentence.contains("nothing is published")
                && sentence.contains("sqlrsync conflicts team/app.db 3")
        );
        outcome.messages = vec!["kept as conflict 3 of team/app.db: rows overlap".into()];
        assert_eq!(outcome.notes(), ["note: sqlrsync resolve team/app.db 3 --keep theirs|mine settles it"]);
        let json = serde_json::to_value(outcome).unwrap();
        assert_eq!((&json["outcome"], &json["conflict"]), (&"conflict".into(), &3.into()));
        assert!(json["version"].is_null());
    }

    #[test]
    fn a_file_that_was_merged_and_has_nothing_new_is_no_version() {
        let mut outcome = Outcome::new(Kind::Unchanged, "app.db".into(), Some("team/app.db".into()));
        outcome.latest = Some(10);
        assert_eq!(outcome.sentence(), "unchanged: app.db has nothing that team/app.db does not have");
        assert!(outcome.notes()[0].contains("version 10; sqlrsync team/app.db app.db pulls it"));
    }

    #[test]
    fn a_pull_says_where_the_changes_are_that_the_file_had() {
        let mut outcome = Outcome::new(Kind::Pulled, "app.db".into(), Some("team/app.db".into()));
        (outcome.version, outcome.conflict) = (Some(4), Some(2));
        assert!(outcome.notes()[0].contains("kept in conflict 2 of team/app.db"), "{:?}", outcome.notes());
    }

    #[test]
    fn what_the_server_says_is_shown_unless_the_sentence_says_it() {
        let mut outcome = pushed();
        outcome.messages = vec!["version 3 of team/app.db".into(), "the disk is nearly full".into()];
        assert_eq!(outcome.notes(), ["server: the disk is nearly full"]);
    }

    #[test]
    fn hostile_names_do_not_steer_the_terminal() {
        let mut outcome = pushed();
        outcome.local = "a\x1b[2J.db".into();
        outcome.messages = vec!["hi\x1b[0m".into()];
        assert!(!outcome.sentence().contains('\x1b') && !outcome.notes()[0].contains('\x1b'));
    }

    #[test]
    fn json_has_nothing_that_a_terminal_obeys_and_means_the_same() {
        let hostile = "a\u{9b}2J\u{202e}\u{e0001}b\u{1b}";
        let text = json_text(&hostile).unwrap();
        assert!(!text.chars().any(is_unseen), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }

    #[test]
    fn sizes_as_people_say_them() {
        let texts = [0, 999, 1000, 9_149, 999_949, 999_950, 1_500_000_000].map(bytes_text);
        assert_eq!(texts, ["0 bytes", "999 bytes", "1.0 KB", "9.1 KB", "999.9 KB", "1.0 MB", "1.5 GB"]);
    }
}
