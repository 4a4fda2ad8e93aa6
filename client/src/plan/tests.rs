//! What was typed becomes which plan: places, keys in their order, flags that exclude each other.

use super::*;
use crate::secrets::{Entry, Secrets};

/// A home with files in it, and an environment.
struct Home {
    folder: tempfile::TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Home {
    fn new() -> Home {
        Home { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    fn with(environment: &[(&'static str, &'static str)]) -> Home {
        Home { environment: environment.to_vec(), ..Home::new() }
    }

    fn folders(&self) -> Folders {
        Folders::new(self.folder.path().to_owned(), None, None)
    }

    fn database(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, b"").unwrap();
        path.canonicalize().unwrap().to_str().unwrap().to_owned()
    }

    fn store(&self, path: &str, remote: &str, server: &str, key: &str) {
        let entry = Entry {
            path: path.into(),
            server: server.into(),
            replica_id: "id1".into(),
            remote_path: remote.into(),
            push_key: key.into(),
        };
        Secrets::read(&self.folders().secrets_file()).unwrap().put(&entry).unwrap();
    }

    fn key_file(&self, path: &str, text: &str) {
        std::fs::write(format!("{path}-sqlrsync"), text).unwrap();
    }

    fn resolve(&self, arguments: &[&str]) -> Result<Plan, Error> {
        let all = std::iter::once("sqlrsync").chain(arguments.iter().copied()).map(OsString::from).collect();
        let look = |name: &str| {
            self.environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        resolve(Typed::parse(all).unwrap(), &look, self.folders()).map(|resolved| resolved.plan)
    }

    fn push(&self, arguments: &[&str]) -> Push {
        match self.resolve(arguments).unwrap() {
            Plan::Push(push) => push,
            other => panic!("{other:?}"),
        }
    }

    fn pull(&self, arguments: &[&str]) -> Pull {
        match self.resolve(arguments).unwrap() {
            Plan::Pull(pull) => pull,
            other => panic!("{other:?}"),
        }
    }
}

fn key(access: &Access) -> Option<&str> {
    access.credential.as_ref().map(|found| found.key.secret())
}

#[test]
fn the_arguments_say_which_way() {
    let home = Home::new();
    assert!(matches!(home.resolve(&["app.db"]), Ok(Plan::Push(_))));
    assert!(matches!(home.resolve(&["app.db", "team/app.db"]), Ok(Plan::Push(_))));
    assert!(matches!(home.resolve(&["team/app.db"]), Ok(Plan::Pull(_))));
    assert!(matches!(home.resolve(&["team/app.db@3", "old.db"]), Ok(Plan::Pull(_))));
    assert!(matches!(home.resolve(&["a.db", "./b.db"]), Ok(Plan::Copy(_))));
    assert!(matches!(home.resolve(&["a.db", "me@host:/b.db"]), Ok(Plan::Ssh(Ssh { way: Way::Out, .. }))));
    assert!(matches!(home.resolve(&["me@host:/b.db", "a.db"]), Ok(Plan::Ssh(Ssh { way: Way::In, .. }))));
}

#[test]
fn what_makes_no_sense_is_usage() {
    let home = Home::new();
    let cases: [&[&str]; 13] = [
        &[],
        &["a/b", "c/d"],
        &["a.db", "team/../x"],
        &["team/app.db@0"],
        &["a.db", "team/app.db@3"],
        &["team/app.db", "-m", "x"],
        &["a.db", "b.db", "--public"],
        &["a.db", "b.db", "--scan"],
        &["a.db", "b.db", "c.db"],
        &["a.db", "http://127.0.0.1:7777/team/a.db"],
        &["log", "team/a.db@3"],
        &["log", "a.db"],
        &["a.db", "team/a.db", "--replicaID", "a b"],
    ];
    for arguments in cases {
        assert_eq!(home.resolve(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}

/// The error's text and what it hints at.
fn said(home: &Home, arguments: &[&str]) -> String {
    let error = home.resolve(arguments).unwrap_err();
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

#[test]
fn what_a_new_user_mistypes_is_said_with_what_to_type() {
    let home = Home::new();
    for typed in [&["push", "a.db", "team/a.db"][..], &["pull", "team/a.db"]] {
        let said = said(&home, typed);
        assert!(
            said.contains(&format!("no command {}", typed[0])) && said.contains("REMOTE] pushes"),
            "{said}"
        );
    }
    assert!(said(&home, &["a.db", "b.db", "c.db"]).contains("more than two"));
    assert!(said(&home, &["a.db", "http://h:1/team/a.db"]).contains("--server"));
    assert!(said(&home, &["log", "team/a.db@3"]).ends_with("sqlrsync log team/a.db"));
    assert!(said(&home, &["log", "./a.db"]).contains("./a.db is a file here"));
    let swapped = said(&home, &["query", "select 1", "team/a.db"]);
    assert!(swapped.contains("query team/a.db \"select 1\""), "{swapped}");
    let swapped = Typed::parse(["sqlrsync", "resolve", "1", "team/a.db"].map(OsString::from).to_vec());
    assert!(swapped.unwrap_err().to_string().contains("behind its replica"));
}

#[test]
fn a_file_that_is_read_as_a_replica_is_named_as_it_can_be_meant() {
    let home = Home::new();
    // A path of this package, from where its tests run.
    let said = said(&home, &["src/lib.rs", "team/a.db"]);
    assert!(
        said.contains("src/lib.rs is read as a replica") && said.ends_with("./src/lib.rs for the file"),
        "{said}"
    );
}

#[test]
fn merging_is_for_a_push_that_lets_the_server_merge() {
    let home = Home::new();
    assert!(home.push(&["a.db", "team/a.db", "--merge"]).merge);
    assert!(!home.push(&["a.db", "team/a.db"]).merge);
    let cases: [&[&str]; 4] = [
        &["team/a.db", "--merge"],
        &["a.db", "b.db", "--merge"],
        &["a.db", "team/a.db", "--merge", "--force"],
        &["a.db", "team/a.db", "--merge", "--dry"],
    ];
    for arguments in cases {
        assert_eq!(home.resolve(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn subscribe_goes_on_with_a_push_or_a_pull_and_with_nothing_else() {
    let home = Home::new();
    match home.resolve(&["a.db", "team/a.db", "--subscribe", "--waitIdle", "10m", "--maxInterval=24h"]) {
        Ok(Plan::Publish(publish)) => assert_eq!(publish.timing.wait_idle.as_secs(), 600),
        other => panic!("{other:?}"),
    }
    match home.resolve(&["team/a.db", "--subscribe", "--exec", "make pages"]) {
        Ok(Plan::Follow(follow)) => assert_eq!(follow.exec.as_deref(), Some("make pages".as_ref())),
        other => panic!("{other:?}"),
    }
    let refused: &[&[&str]] = &[
        &["a.db", "--waitIdle", "ten", "--subscribe"],
        &["a.db", "--waitIdle", "10m"],
        &["a/b", "--exec", "true"],
        &["a/b@7", "--subscribe"],
        &["a/b", "--subscribe", "--waitIdle", "10m"],
        &["a.db", "--subscribe", "--exec", "true"],
        &["a.db", "--subscribe", "--dry"],
        &["a.db", "b.db", "--subscribe"],
        &["a.db", "--subscribe", "--waitIdle", "2h", "--maxInterval", "1h"],
    ];
    for arguments in refused {
        assert_eq!(home.resolve(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn a_stored_push_finds_its_way_again() {
    let home = Home::new();
    let database = home.database("app.db");
    home.store(&database, "team/app.db", "ws://one:1", "stored-key");
    let push = home.push(&[&database]);
    assert_eq!(push.remote.unwrap().to_string(), "team/app.db");
    assert_eq!(push.access.server.to_string(), "ws://one:1");
    assert_eq!(key(&push.access), Some("stored-key"));
    assert_eq!(push.replica_id.unwrap().as_str(), "id1");
    let push = home.push(&[&database, "--replicaID="]);
    assert_eq!(push.replica_id.unwrap().as_str(), "id1");
}

#[test]
fn a_stored_key_goes_to_no_other_server() {
    let home = Home::with(&[("SQLRSYNC_ADMIN_KEY", "admin")]);
    let database = home.database("app.db");
    home.store(&database, "team/app.db", "ws://one:1", "stored-key");
    let push = home.push(&[&database, "team/app.db", "--server", "ws://two:2"]);
    assert_eq!((push.access.server.to_string().as_str(), key(&push.access)), ("ws://two:2", Some("admin")));
}

#[test]
fn keys_are_found_in_the_order_of_the_public_client() {
    let all = [("SQLRSYNC_AUTH_TOKEN", "token"), ("SQLRSYNC_ADMIN_KEY", "admin")];
    let home = Home::with(&all);
    let database = home.database("app.db");
    home.store(&database, "team/app.db", settings::DEFAULT_SERVER, "stored");
    assert_eq!(key(&home.push(&[&database, "--pushKey", "flag"]).access), Some("token"));
    let home = Home { environment: all[1..].to_vec(), ..home };
    assert_eq!(key(&home.push(&[&database, "--pushKey", "flag"]).access), Some("flag"));
    assert_eq!(key(&home.push(&[&database]).access), Some("stored"));
    let other = home.database("other.db");
    assert_eq!(key(&home.push(&[&other]).access), Some("admin"));
    let home = Home { environment: Vec::new(), ..home };
    assert_eq!(key(&home.push(&[&other]).access), None);
}

#[test]
fn a_pull_uses_the_file_beside_the_database() {
    let home = Home::with(&[("SQLRSYNC_ADMIN_KEY", "admin")]);
    let database = home.database("app.db");
    home.key_file(
        &database,
        "sqlrsync team/app.db app.db --pullKey=beside --server=ws://one:1 --replicaID=r9\n",
    );
    let pull = home.pull(&["team/app.db", &database]);
    assert_eq!((pull.access.server.to_string().as_str(), key(&pull.access)), ("ws://one:1", Some("beside")));
    assert_eq!(pull.replica_id.unwrap().as_str(), "r9");
    assert!(matches!(pull.request_keys, KeysWanted::No));
    // Another replica is another matter.
    let pull = home.pull(&["team/other.db", &database]);
    assert_eq!(key(&pull.access), Some("admin"));
}

#[test]
fn who_pushes_a_replica_can_pull_its_versions() {
    let home = Home::new();
    let database = home.database("app.db");
    home.store(&database, "team/app.db", "ws://one:1", "stored-key");
    let pull = home.pull(&["team/app.db@3", "old.db"]);
    assert_eq!(
        (pull.access.server.to_string().as_str(), key(&pull.access)),
        ("ws://one:1", Some("stored-key"))
    );
    let pull = home.pull(&["team/app.db@3", "old.db", "-s", "ws://two:2"]);
    assert_eq!(key(&pull.access), None);
}

#[test]
fn two_places_for_one_database_are_not_guessed_between() {
    let home = Home::new();
    let database = home.database("app.db");
    home.store(&database, "team/a.db", "ws://one:1", "k1");
    home.store(&database, "team/b.db", "ws://one:1", "k2");
    assert_eq!(home.resolve(&[&database]).unwrap_err().exit_code(), 2);
    assert_eq!(key(&home.push(&[&database, "team/b.db"]).access), Some("k2"));
}

#[test]
fn a_key_that_is_none_is_refused_without_being_shown() {
    let home = Home::with(&[("SQLRSYNC_AUTH_TOKEN", "se cret")]);
    let error = home.resolve(&["team/app.db"]).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(!error.to_string().contains("cret"), "{error}");
    assert!(
        !format!("{:?}", Home::with(&[("SQLRSYNC_AUTH_TOKEN", "topsecret")]).pull(&["a/b"]))
            .contains("topsecret")
    );
}

#[test]
fn a_symbolic_link_is_the_file_that_it_leads_to() {
    let home = Home::new();
    let database = home.database("app.db");
    let link = home.folder.path().join("link.db");
    std::os::unix::fs::symlink(&database, &link).unwrap();
    home.store(&database, "team/app.db", "ws://one:1", "k");
    assert_eq!(key(&home.push(&[link.to_str().unwrap()]).access), Some("k"));
}

#[test]
fn a_peer_names_its_files_as_sqlite3_rsync_does() {
    let home = Home::new();
    let origin = home.resolve(&["--origin", "--protocol", "2", "-vv", "/x/a.db", "b.db"]).unwrap();
    let Plan::Peer(origin) = origin else { panic!() };
    assert_eq!((origin.way, origin.name.as_str(), origin.protocol), (Way::Out, "b.db", 2));
    let replica = home.resolve(&["--replica", "--wal-only", "a.db", "/x/b.db"]).unwrap();
    let Plan::Peer(replica) = replica else { panic!() };
    assert_eq!((replica.way, replica.name.as_str(), replica.wal_only), (Way::In, "a.db", true));
    assert!(replica.local.path.ends_with("b.db") && !replica.remember && replica.force);
}

#[test]
fn what_is_compared_follows_from_the_arguments() {
    let home = Home::new();
    let sides = |arguments: &[&str]| match home.resolve(arguments) {
        Ok(Plan::Diff(diff)) => Ok((diff.sides, diff.form)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.exit_code()),
    };
    match sides(&["diff", "team/a.db@7", "team/a.db"]).unwrap() {
        (DiffSides::Versions { from, to, .. }, DiffForm::Rows) => {
            assert_eq!((from, to), ("7".parse().unwrap(), VersionSelector::Latest));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        sides(&["diff", "a.db", "./b.db", "--stat"]),
        Ok((DiffSides::Files { .. }, DiffForm::Stat))
    ));
    assert!(matches!(
        sides(&["diff", "a.db", "team/a.db@3", "--sql"]),
        Ok((DiffSides::FileAndVersion { file_first: true, .. }, DiffForm::Sql))
    ));
    assert!(matches!(
        sides(&["diff", "team/a.db", "a.db", "--changeset", "c"]),
        Ok((DiffSides::FileAndVersion { file_first: false, .. }, DiffForm::Changeset(_)))
    ));
    let wrong: [&[&str]; 5] = [
        &["diff", "team/a.db", "team/b.db"],
        &["diff", "a.db", "me@host:/b.db"],
        &["diff", "a.db"],
        &["diff", "a.db", "b.db", "--stat", "--sql"],
        &["diff", "a.db", "b.db", "--json", "--sql"],
    ];
    for arguments in wrong {
        let typed = std::iter::once("sqlrsync").chain(arguments.iter().copied()).map(OsString::from);
        match Typed::parse(typed.collect()) {
            Err(error) => assert_eq!(error.exit_code(), 2),
            Ok(_) => assert_eq!(sides(arguments).unwrap_err(), 2, "{arguments:?}"),
        }
    }
}

#[test]
fn a_settlement_says_of_every_row_what_becomes_of_it_and_uses_a_key_that_may_push() {
    let home = Home::with(&[("SQLRSYNC_ADMIN_KEY", "admin")]);
    let path = home.database("a.db");
    home.store(&path, "team/a.db", "ws://127.0.0.1:7777", "stored");
    home.key_file(&path, "sqlrsync team/a.db --pullKey=beside");
    match home.resolve(&["resolve", "team/a.db", "3", "--keep", "mine", "--row", "t:1=theirs"]).unwrap() {
        Plan::Resolve(resolve) => {
            assert_eq!((resolve.number.get(), resolve.keep), (3, Some(crate::cli::Keep::Mine)));
            assert_eq!(resolve.rows[0].1, crate::cli::Keep::Theirs);
            assert_eq!(key(&resolve.access), Some("stored"));
        }
        other => panic!("{other:?}"),
    }
    let wrong: [&[&str]; 4] = [
        &["resolve", "team/a.db", "3"],
        &["resolve", "team/a.db", "0", "--keep", "mine"],
        &["resolve", "team/a.db", "3", "--row", "t=mine"],
        &["resolve", "./a.db", "3", "--keep", "mine"],
    ];
    for arguments in wrong {
        assert_eq!(home.resolve(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn conflicts_and_queries_name_a_replica() {
    let home = Home::new();
    assert!(matches!(
        home.resolve(&["conflicts", "team/a.db", "3"]),
        Ok(Plan::Conflicts(Conflicts { number: Some(_), all: false, .. }))
    ));
    assert!(matches!(home.resolve(&["query", "team/a.db@7", "select 1"]), Ok(Plan::Query(_))));
    for arguments in
        [["conflicts", "./a.db", "3"], ["query", "./a.db", "select 1"], ["conflicts", "team/a.db", "0"]]
    {
        assert_eq!(home.resolve(&arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}
