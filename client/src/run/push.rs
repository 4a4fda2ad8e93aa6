//! A push: a local database becomes a new version of a replica on a server.

use serde_json::Value;
use sqlrsync_protocol::conversation::{OriginOptions, Summary, run_origin};
use sqlrsync_protocol::exchange::{Committed, OriginPages, Refusal};
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_protocol::text::Config;

use super::guard::{Count, Ended, GuardedOrigin, OriginGuard, ended};
use super::rest::Rest;
use super::{Run, failed, keys, pages, wire_failed};
use crate::client_id::client_id;
use crate::connect::{Asking, Purpose, connect};
use crate::error::Error;
use crate::outcome::{Kind, Outcome};
use crate::plan::Push;
use crate::prompt::ask_for_key;
use crate::state::{FileLock, State};
use crate::wire::websocket::{Greeting, Said};

/// Pushes. A key that had to be asked for is in the plan afterwards.
pub fn push(run: &Run, plan: &mut Push) -> Result<Outcome, Error> {
    let path = &plan.local.path;
    let _lock = FileLock::take(run.folders.state(), path)?;
    let mut state = State::open(run.folders.state(), path, &state_name(plan, plan.remote.as_ref()));
    let push_id = if plan.dry { None } else { Some(state.push_id()?) };
    let mut database = pages::origin(run, path, Some(&state), push_id, plan.scan)?;
    if plan.access.credential.is_none() {
        plan.access.credential = Some(ask_for_key("push", &plan.local.shown())?);
    }
    run.warn_of_plain_text(&plan.access);

    let client_id = client_id(&run.folders)?;
    let made_from = state.made_from(database.base()?.is_some());
    let asking = Asking {
        purpose: Purpose::Push {
            local: plan.local.path.clone(),
            visibility: plan.visibility,
            force: plan.force,
            made_from,
        },
        remote: plan.remote.as_ref(),
        replica_id: plan.replica_id.as_ref(),
        access: &plan.access,
        client_id: &client_id,
    };
    let request_keys = keys::are_wanted(&plan.request_keys, &plan.access, plan.remote.as_ref());
    let greeting = Greeting { message: plan.message.clone(), request_keys };
    let (mut wire, traffic) = connect(&run.runtime, &asking, &greeting, run.silence_max, &run.cancel)?;

    let who = format!("the server {}", plan.access.server);
    let options = OriginOptions { version_max: plan.access.protocol, ..OriginOptions::default() };
    // What waits in a conflict is asked for again: it is for the server to say whether it still does.
    let stop_stale = !plan.force && state.conflict().is_none();
    let guard = OriginGuard { dry: plan.dry, stop_stale };
    let mut guarded = GuardedOrigin::new(database, guard);
    let mut progress = run.progress(&plan.local.shown());
    let end = ended(run_origin(options, &mut guarded, &mut wire, &mut progress));
    progress.finish();
    let end = end.map_err(|error| failed(error, &who))?;

    let said = match end {
        Ended::Done(_) => wire.hear_out().map_err(|error| wire_failed(error, &who))?,
        _ => wire.hang_up(),
    };
    let remote = plan.remote.clone().or_else(|| said.config.replica_path.clone());
    let mut outcome = outcome(plan, &state, &end, &said, remote.as_ref());
    (outcome.bytes_sent, outcome.bytes_received) = (traffic.sent(), traffic.received());
    if let Ended::Counted(count) = &end {
        (outcome.bytes_sent, outcome.bytes_received) = (count.bytes, 0);
        outcome.version = remote.as_ref().and_then(|remote| version_to_be(plan, remote, count.pages == 0));
    }
    outcome.messages.extend(progress.messages().iter().cloned());
    let database = guarded.into_inner();
    outcome.scanned = Some(database.has_read_all());
    if let (Ended::Done(summary), Some(remote)) = (&end, &remote) {
        if plan.remote.is_none() {
            // The server has named the replica: from now on its state is found by that name.
            state = State::open(run.folders.state(), &plan.local.path, &state_name(plan, Some(remote)));
        }
        let version = version(summary, &said.config);
        pages::remember_pushed(run, &mut state, database.agreed(), &summary.committed, version);
        keys::keep_after_push(run, plan, remote, &said.config);
    }
    Ok(outcome)
}

/// What names the state: the server and the replica.
fn state_name(plan: &Push, remote: Option<&RemoteName>) -> String {
    super::state_name(&plan.access.server, remote)
}

fn version(summary: &Summary, said: &Config) -> Option<sqlrsync_protocol::page::VersionNumber> {
    summary.committed.version.or(said.committed_version)
}

/// The number that a dry run is about: of the version that there would be, or of the latest where nothing
/// changed. The conversation does not say it in every version of the protocol. `None` where the server
/// does not tell.
fn version_to_be(plan: &Push, remote: &RemoteName, unchanged: bool) -> Option<u64> {
    let asked = Rest::new(&plan.access).and_then(|mut rest| rest.get::<Value>(remote, "status", &[]));
    let latest = match asked {
        Ok(status) => status["latest"].as_u64(),
        // It is made by its first push.
        Err(Error::Refused { refusal: Refusal::NotFound, .. }) => None,
        Err(error) => {
            tracing::debug!(%error, "the server does not say which version there would be");
            return None;
        }
    };
    if unchanged { latest } else { Some(latest.unwrap_or(0) + 1) }
}

/// What a push that went through came to.
fn kind(summary: &Summary) -> Kind {
    let committed = &summary.committed;
    // Versions 1 and 2 do not say that nothing changed; that nothing was sent does.
    let unchanged = committed.unchanged || (summary.version < 3 && summary.pages_sent == 0);
    match committed {
        Committed { conflict: Some(_), .. } => Kind::Conflict,
        _ if unchanged => Kind::Unchanged,
        Committed { merged: true, .. } => Kind::Merged,
        _ => Kind::Pushed,
    }
}

fn outcome(
    plan: &Push,
    state: &State,
    end: &Ended<Summary>,
    said: &Said,
    remote: Option<&RemoteName>,
) -> Outcome {
    let new = |kind| Outcome::new(kind, plan.local.shown(), remote.map(ToString::to_string));
    let ours = state.base().and_then(|base| base.version).map(|version| version.get());
    let mut outcome = match end {
        Ended::Done(summary) => {
            let mut outcome = new(kind(summary));
            outcome.version = version(summary, &said.config).map(|version| version.get());
            outcome.conflict = summary.committed.conflict.map(|number| number.get());
            if outcome.kind == Kind::Unchanged && !summary.committed.as_sent() {
                // The version has all that the file has, and more.
                outcome.latest = outcome.version.take();
            }
            outcome.pages_sent = summary.pages_sent;
            outcome.overtook = summary.committed.overtook;
            outcome
        }
        Ended::Counted(Count { pages, .. }) => {
            let mut outcome = new(if *pages == 0 { Kind::Unchanged } else { Kind::Pushed });
            outcome.pages_sent = *pages;
            outcome
        }
        Ended::Stale { latest } => {
            let mut outcome = new(Kind::Unchanged);
            outcome.version = ours;
            outcome.latest = latest.version.map(|version| version.get());
            outcome
        }
    };
    outcome.replica_id = said.config.replica_id.clone().or_else(|| plan.replica_id.clone());
    outcome.dry = plan.dry;
    outcome.messages = said.messages.clone();
    outcome
}
