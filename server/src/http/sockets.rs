//! `/sapi/...`: decides before the upgrade, with a status and one line of text, and hands the
//! WebSocket to its session after it.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use tokio::time::Instant;

use super::router::App;
use super::{answer, request};
use crate::access::{Caller, PushRight};
use crate::backend::Doing;
use crate::catalog::ReplicaRecord;
use crate::listener::Peer;
use crate::refused::{Refused, Why};
use crate::session::pull::PullSession;
use crate::session::push::PushSession;
use crate::session::subscribe::{MESSAGE_BYTES_MAX, SubscribeSession};
use crate::session::{Common, Limits};
use crate::sessions::Ground;

/// The buffers of a WebSocket.
#[derive(Clone, Copy)]
struct Buffers {
    /// For what is read, in bytes; each open WebSocket has it.
    read: usize,
    /// How much is collected before it is written to the socket, in bytes.
    write: usize,
    /// Longest message that is taken, in bytes.
    message_max: usize,
}

impl Buffers {
    /// For pages.
    const fn of_transfer(limits: &Limits) -> Buffers {
        Buffers { read: 32 * 1024, write: 64 * 1024, message_max: limits.message_bytes_max }
    }

    /// For a few short texts in hours: there may be thousands of these.
    const SUBSCRIBER: Buffers = Buffers { read: 512, write: 512, message_max: MESSAGE_BYTES_MAX };
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// `GET /sapi/push/{namespace}/{path}`, where both may be left out.
pub async fn push(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Response {
    match open_push(&app, peer, &headers, &uri).await {
        Ok(session) => start(upgrade, Buffers::of_transfer(&app.limits), move |socket| session.run(socket)),
        Err(refused) => answer::refusal(&refused),
    }
}

async fn open_push(app: &App, peer: Peer, headers: &HeaderMap, uri: &Uri) -> Result<PushSession, Refused> {
    let name = request::name_after(uri, "/sapi/push")?;
    let key = request::credentials(headers)?.key;
    let says = request::client_says(headers)?;
    let plan = app.backend.blocking(move |backend| {
        let caller = backend.authenticate(key.as_ref())?;
        backend.plan_push(caller, name, says)
    });
    let plan = plan.await?;
    let pushes = request::is_own_client(headers) && !request::only_announces(headers);
    if plan.right == PushRight::PullOnly && pushes {
        return Err(Caller::pull_key_pushes());
    }
    let common = enter(app, peer, &plan.caller, None).await?;
    Ok(PushSession { common, plan })
}

/// `GET /sapi/pull/{namespace}/{path}`.
pub async fn pull(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Response {
    match open_pull(&app, peer, &headers, &uri).await {
        Ok(session) => start(upgrade, Buffers::of_transfer(&app.limits), move |socket| session.run(socket)),
        Err(refused) => answer::refusal(&refused),
    }
}

async fn open_pull(app: &App, peer: Peer, headers: &HeaderMap, uri: &Uri) -> Result<PullSession, Refused> {
    let name = request::name_after(uri, "/sapi/pull")?;
    let key = request::credentials(headers)?.key;
    let says = request::client_says(headers)?;
    let client = says.name();
    let plan = app.backend.blocking(move |backend| {
        let caller = backend.authenticate(key.as_ref())?;
        backend.plan_pull(caller, name.as_ref(), &says)
    });
    let plan = plan.await?;
    let deadline = Instant::now() + app.limits.busy_wait;
    let room = app.backend.rooms.take(peer.permit.address(), deadline).await?;
    let common = enter(app, peer, &plan.caller, Some(&plan.record)).await?;
    Ok(PullSession { common, plan, client, room })
}

/// `GET /sapi/subscribe/{namespace}/{path}`.
pub async fn subscribe(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Response {
    match open_subscribe(&app, peer, &headers, &uri).await {
        Ok(session) => start(upgrade, Buffers::SUBSCRIBER, move |socket| session.run(socket)),
        Err(refused) => answer::refusal(&refused),
    }
}

async fn open_subscribe(
    app: &App,
    peer: Peer,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<SubscribeSession, Refused> {
    let name = request::name_after(uri, "/sapi/subscribe")?;
    let key = request::credentials(headers)?.key;
    let says = request::client_says(headers)?;
    let client = says.name();
    let found = app.backend.blocking(move |backend| {
        let caller = backend.authenticate(key.as_ref())?;
        let record = backend.pullable(&caller, name.as_ref(), &says)?;
        Ok((caller, record))
    });
    let (caller, record) = found.await?;
    let common = enter(app, peer, &caller, Some(&record)).await?;
    let present = app.backend.activity.enter(&record.id, client, Doing::Following);
    Ok(SubscribeSession { common, record, present })
}

/// Enters the session before what its right rests on is looked at once more, so that nothing falls
/// between. `pulled` is the replica that it is let have.
async fn enter(
    app: &App,
    peer: Peer,
    caller: &Caller,
    pulled: Option<&ReplicaRecord>,
) -> Result<Common, Refused> {
    let open = pulled.filter(|record| caller.pulls_as_anybody(record));
    let ground =
        Ground { key: caller.key().map(|key| key.id), open_replica: open.map(|record| record.id.clone()) };
    let session = app.backend.sessions.enter(ground.clone());
    app.backend.blocking(move |backend| backend.still_holds(&ground)).await?;
    Ok(Common { backend: app.backend.clone(), limits: app.limits, session, peer })
}

/// Upgrades, and runs the session then.
fn start<F>(
    upgrade: Upgrade,
    buffers: Buffers,
    session: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    match upgrade {
        Ok(upgrade) => {
            let mut response = upgrade
                .read_buffer_size(buffers.read)
                .write_buffer_size(buffers.write)
                // Reached only by a bug: what does not fit waits in the session's queue, or is not asked for.
                .max_write_buffer_size(buffers.write + 8 * buffers.message_max)
                .max_message_size(buffers.message_max)
                .max_frame_size(buffers.message_max)
                .on_upgrade(session);
            response.headers_mut().insert(answer::MESSAGE_MAX_HEADER, buffers.message_max.into());
            response
        }
        Err(rejection) => {
            let text = format!("this is for WebSockets: {}", rejection.body_text());
            answer::refusal(&Refused::new(Why::BadRequest, text))
        }
    }
}
