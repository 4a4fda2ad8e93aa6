//! A server whose power fails, at once after it acknowledged something and at any moment: what was
//! acknowledged is there, what was not is there whole or not at all.
//!
//! Kills show the order of what is written (`crash`, `merge_faults`); only a cut shows that it was synced.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::{self, Events};
use sqlrsync_tests::power::{Disk, keep_mounts_apart, sync};
use sqlrsync_tests::programs::{on_path, programs};
use sqlrsync_tests::random::Random;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::team::{self, FILE, REMOTE, Team, objects, push, try_push, write};

use crate::{needs, not_shown};

/// Cuts at random moments in each test.
const CUTS: u32 = 8;

/// A disk to cut, where there can be one.
pub(crate) fn disk(what: &str) -> Option<Disk> {
    if let Err(error) = keep_mounts_apart() {
        not_shown(what, &format!("nothing can be mounted here (this needs root): {error}"));
        return None;
    }
    needs(on_path("mkfs.ext4"), "mkfs.ext4", "e2fsprogs", what)?;
    needs(on_path("mount"), "mount", "mount", what)?;
    Disk::new().map_err(|why| not_shown(what, &why)).ok()
}

/// Cuts the power of a server, and starts it again.
fn cut(server: &mut Server, disk: &Disk) {
    disk.cut();
    server.kill();
    recovered(server, disk);
}

/// Starts a server again after a cut, when everything that survived is proved.
fn recovered(server: &mut Server, disk: &Disk) {
    disk.recover();
    let check = server.command(&["check"]);
    assert!(check.status.success(), "after a cut: {}", String::from_utf8_lossy(&check.stdout));
    server.restart();
}

/// What the audit log says was done, newest first; but for keys, which the tests make all the time.
fn audit(server: &Server) -> Vec<String> {
    let url = format!("{}/api/v1/replicas/{REMOTE}/audit?limit=1000", server.url());
    let key = format!("Bearer {}", server.create_key(&["--kind", "admin", "--namespace", "team"]));
    let mut answer = ureq::get(&url).header("Authorization", key).call().unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let action = |entry: &Value| entry["action"].as_str().unwrap().to_owned();
    let actions = answer["entries"].as_array().unwrap().iter().map(action);
    actions.filter(|action| action != "key-created").collect()
}

/// Number and root of each version, newest first.
fn versions(client: &Client) -> Vec<(u64, String)> {
    let log = client.run(&["log", REMOTE, "--json"]).ok();
    let version = |of: &Value| (of["version"].as_u64().unwrap(), of["root"].as_str().unwrap().to_owned());
    objects(&log).iter().map(version).collect()
}

#[test]
fn a_cut_takes_what_was_not_synced_and_leaves_what_was() {
    let Some(disk) = disk("that a power cut is one") else { return };
    let at = |name: &str| disk.path().join(name);
    let pages = vec![7; 100_000];
    for name in ["written", "replaced"] {
        std::fs::write(at(name), b"before").unwrap();
        sync(&at(name)).unwrap();
    }
    std::fs::write(at("synced"), &pages).unwrap();
    sync(&at("synced")).unwrap();
    sync(&disk.path()).unwrap();
    std::fs::write(at("written"), &pages).unwrap();
    std::fs::write(at("new"), &pages).unwrap();
    std::fs::write(at("other"), &pages).unwrap();
    std::fs::rename(at("other"), at("replaced")).unwrap();
    disk.cut();
    assert!(std::fs::write(at("after"), "nothing more arrives").is_err());
    disk.recover();
    assert_eq!(std::fs::read(at("synced")).unwrap(), pages);
    assert_ne!(std::fs::read(at("written")).unwrap(), pages);
    assert!(std::fs::read(at("replaced")).unwrap() == b"before", "a rename that nobody synced");
    assert!(!at("new").exists() && !at("other").exists() && !at("after").exists());
}

#[test]
fn what_a_server_acknowledged_survives_a_power_cut_at_once_afterwards() {
    let Some(disk) = disk("a power cut after each thing that a server acknowledges") else { return };
    let mut server = Server::start_with(programs(), Some(&disk.path()), &[]);
    let (a, b) = (Client::admin(&server), Client::admin(&server));
    cut(&mut server, &disk);

    // Versions, the first of which makes the replica.
    team::create(&a.path(FILE));
    push(&a, "pushed");
    cut(&mut server, &disk);
    b.run(&[REMOTE]).ok();
    sample::assert_same(&a.path(FILE), &b.path(FILE));
    write(&a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(&a, "pushed");
    cut(&mut server, &disk);
    write(&b, "UPDATE customers SET name = 'by b' WHERE id = 2");
    push(&b, "merged");
    cut(&mut server, &disk);
    let names = |of: &Team| of.latest().text("SELECT group_concat(name) FROM customers WHERE id < 3");
    let mut team = Team { server, machines: vec![a, b] };
    assert_eq!((team.versions(), names(&team).as_str()), (3, "by a,by b"));
    assert_eq!(audit(&team.server)[..2], ["merged", "candidate-kept"]);

    // A conflict.
    let [a, b] = &team.machines[..] else { panic!("two machines") };
    team::pull(a);
    write(a, "UPDATE customers SET name = 'theirs' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'mine' WHERE id = 1");
    push(b, "conflict");
    cut(&mut team.server, &disk);
    let rows = objects(&team.machines[0].run(&["conflicts", REMOTE, "1", "--json"]).ok());
    assert!(
        rows.iter().any(|row| row["mine"]["name"] == "mine" && row["theirs"]["name"] == "theirs"),
        "{rows:?}"
    );
    assert_eq!(audit(&team.server)[..2], ["conflict-opened", "candidate-kept"]);
    team.machines[0].run(&["resolve", REMOTE, "1", "--keep", "mine"]).ok();
    cut(&mut team.server, &disk);
    assert_eq!((team.versions(), team.conflicts().len()), (5, 0));
    assert_eq!(names(&team), "mine,by b");
    assert_eq!(audit(&team.server)[0], "conflict-settled");
}

#[test]
fn keys_and_rules_survive_a_power_cut_at_once_afterwards() {
    let Some(disk) = disk("a power cut after keys and rules were changed") else { return };
    let team = Team::on(Server::start_with(programs(), Some(&disk.path()), &[]), 1);
    let Team { mut server, machines } = team;
    let client = &machines[0];
    let made = server.create_key(&["--kind", "push", "--replica", REMOTE, "--json"]);
    cut(&mut server, &disk);
    let made: Value = serde_json::from_str(&made).unwrap();
    let holder = Client::guest(&server).with_env("SQLRSYNC_AUTH_TOKEN", made["key"].as_str().unwrap());
    holder.run(&[REMOTE]).ok();
    write(&holder, "UPDATE customers SET name = 'new' WHERE id = 1");
    push(&holder, "pushed");

    let done = |server: &Server, words: &[&str]| {
        let output = server.command(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    done(&server, &["key", "revoke", made["id"].as_str().unwrap()]);
    cut(&mut server, &disk);
    holder.run(&[REMOTE]).code(4);
    assert_eq!(try_push(&holder, &[]).0, 4);

    done(&server, &["replica", "visibility", REMOTE, "public"]);
    cut(&mut server, &disk);
    Client::guest(&server).run(&[REMOTE]).ok();
    done(&server, &["replica", "visibility", REMOTE, "private"]);
    cut(&mut server, &disk);
    Client::guest(&server).run(&[REMOTE]).code(4);

    done(&server, &["replica", "policy", REMOTE, "reject"]);
    cut(&mut server, &disk);
    assert!(done(&server, &["replica", "policy", REMOTE, "--json"]).contains("reject"));
    let wanted = ["policy-changed", "visibility-changed", "visibility-changed", "key-revoked"];
    assert_eq!(audit(&server)[..4], wanted);
    // A replica and its rules are one with its versions.
    assert_eq!(versions(client).len(), 2);
}

const DATABASE: Events = Events { name: "power", bytes: 3_000_000, seed: 21 };

fn some_of(time: Duration, random: &mut Random) -> Duration {
    Duration::from_micros(random.below(u64::try_from(time.as_micros()).unwrap().max(1)))
}

/// Pushes, and cuts the power of the server after that time. True where it was acknowledged all the same.
fn cut_during(server: &mut Server, disk: &Disk, client: &Client, after: Duration) -> bool {
    let mut command = client.command(&[FILE, REMOTE, "--quiet"]);
    let mut pushing = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    disk.cut();
    server.kill();
    let status = pushing.wait().unwrap();
    recovered(server, disk);
    // A conflict is an acknowledgement as well.
    matches!(status.code(), Some(0 | 3))
}

#[test]
fn a_server_whose_power_fails_during_pushes_keeps_every_acknowledged_version_whole() {
    let Some(disk) = disk("power cuts during pushes") else { return };
    let mut server = Server::start_with(programs(), Some(&disk.path()), &[]);
    let client = Client::admin(&server);
    let app = client.path(FILE);
    DATABASE.create(&app).unwrap();
    let began = Instant::now();
    client.run(&[FILE, REMOTE]).ok();
    let time = began.elapsed();
    let mut random = Random::new(31);
    for round in 0..CUTS {
        let before = versions(&client);
        events::change_rows(&app, &mut random, 2000).unwrap();
        let acknowledged = cut_during(&mut server, &disk, &client, some_of(time, &mut random));
        let now = versions(&client);
        assert!(now.ends_with(&before), "round {round}: {before:?} was there, now {now:?}");
        let new = now.len() - before.len();
        assert!(if acknowledged { new == 1 } else { new <= 1 }, "round {round}: {acknowledged} {now:?}");
    }
    client.run(&[FILE, REMOTE]).ok();
    let puller = Client::admin(&server);
    puller.run(&[REMOTE]).ok();
    sample::assert_same(&app, &puller.path(FILE));
}

#[test]
fn a_server_whose_power_fails_during_merges_loses_and_doubles_nothing() {
    let Some(disk) = disk("power cuts during merges") else { return };
    let mut team = Team::on(Server::start_with(programs(), Some(&disk.path()), &[]), 2);
    let mut random = Random::new(32);
    let began = Instant::now();
    write(&team.machines[0], "INSERT INTO notes VALUES('row 0', '')");
    push(&team.machines[0], "pushed");
    let time = began.elapsed() * 2;
    for round in 1..=CUTS {
        let client = &team.machines[round as usize % 2];
        write(client, &format!("INSERT INTO notes VALUES('row {round}', '')"));
        let before = versions(client);
        let acknowledged = cut_during(&mut team.server, &disk, client, some_of(time, &mut random));
        let now = versions(client);
        assert!(now.ends_with(&before), "round {round}: {before:?} was there, now {now:?}");
        assert!(!acknowledged || now.len() == before.len() + 1, "round {round}: {now:?}");
        client.run(&[FILE, REMOTE]).ok();
    }
    let latest = team.latest();
    latest.assert_sound();
    let rows = latest.number("SELECT count(*) FROM notes WHERE key LIKE 'row %'");
    assert_eq!((rows, team.versions()), (i64::from(CUTS) + 1, u64::from(CUTS) + 2));
    assert!(team.conflicts().is_empty());
}
