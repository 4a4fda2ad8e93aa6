//! Looking into versions: differences as a stream, and queries.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use utoipa::IntoParams;

use super::super::answer;
use super::{Asked, Cancel, is_set, version};
use crate::backend::{DiffFormat, DiffStat, Difference, QueryAnswer, Question, error_end, error_line};
use crate::refused::Refused;

/// How much is collected before it goes out, in bytes.
const CHUNK_BYTES: usize = 32 << 10;

/// The longest line that ends a difference, in bytes. Clients hold so much back.
const END_LEN_MAX: usize = 64 << 10;

/// How many chunks wait for a reader that is slow.
const CHUNKS_WAITING_MAX: usize = 8;

/// What is asked for of a difference.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffQuery {
    /// The older version.
    #[param(minimum = 1)]
    from: u64,
    /// The newer version.
    #[param(minimum = 1)]
    to: u64,
    /// Only numbers by table, as one object.
    stat: Option<String>,
    /// How it is written: `json`, an object a line; `sql`; or `changeset`.
    #[serde(default)]
    format: DiffFormat,
    /// With `sql` and `changeset`: after all of it comes a line of JSON, a `DiffEnd` of 64 KiB at the most, and then
    /// its length with the line feed, as ten digits and a line feed. Where it could not be finished, the line has `error`
    /// as that of JSON has, and what stands before it is a part; without `end` the answer breaks off.
    end: Option<String>,
}

/// Which rows differ between two versions, as they are found. For keys of the replica.
///
/// As lines of JSON each has `table`, `key`, `op` (`insert`, `update`, `delete`), `before` and `after`; a change
/// of the schema has `schema` and `name` in place of the first two. At the end a line with `left_out`, a table, and
/// `why` says that of that table more differs, or may, which no row says: rows that nothing names. A last line with
/// `error`, and `refusal` (the number of the header `x-sqlrsync-refusal`), says that it could not be finished. What takes longer than the
/// server's `--diff-timeout` is refused with 400, or ends so.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/diff", tag = "rows",
    params(("name" = String, Path, description = "NAMESPACE/PATH"), DiffQuery),
    responses(
        (status = 200, description = "Lines of JSON, SQL, or a changeset; with stat, how much differs", content(
            (String = "application/x-ndjson"),
            (String = "application/sql"),
            (String = "application/octet-stream"),
            (DiffStat = "application/json"),
        )),
    ),
)]
pub(super) async fn diff(asked: Asked) -> Result<Response, Refused> {
    let query: DiffQuery = asked.query()?;
    let versions = (version(query.from)?, version(query.to)?);
    let cancel = Cancel::default();
    let flag = cancel.flag();
    if is_set(query.stat.as_deref()) {
        let stat = asked.long(move |backend, caller, name| {
            let difference = backend.open_difference(&caller, name, versions, flag)?;
            difference.stat().map_err(|error| difference.refused(error))
        });
        return Ok(answer::json(&stat.await?));
    }
    let (opened, open) = oneshot::channel();
    let (chunks, received) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (format, patience) = (query.format, asked.app.limits.idle);
    let ends = format != DiffFormat::Json && is_set(query.end.as_deref());
    let writer = Chunks { chunks, patience, runtime: Handle::current(), waiting: Vec::new() };
    let run = asked.long(move |backend, caller, name| {
        match backend.open_difference(&caller, name, versions, flag) {
            Ok(difference) => {
                let _ = opened.send(Ok(()));
                write(&difference, format, ends, writer);
            }
            Err(refused) => drop(opened.send(Err(refused))),
        }
        Ok(())
    });
    let run = tokio::spawn(run);
    match open.await {
        Ok(opened) => opened?,
        // It did not come so far: there was no room, or the key is none.
        Err(_) => run.await.unwrap_or_else(|error| Err(Refused::failed("a comparison", &error)))?,
    }
    let body = stream::unfold((received, cancel), |(mut received, cancel)| async move {
        received.recv().await.map(|chunk| (chunk, (received, cancel)))
    });
    let mut response = Response::new(Body::from_stream(body));
    let content_type = match format {
        DiffFormat::Json => "application/x-ndjson",
        DiffFormat::Sql => "application/sql; charset=utf-8",
        DiffFormat::Changeset => "application/octet-stream",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

fn write(difference: &Difference, format: DiffFormat, ends: bool, mut writer: Chunks) {
    match difference.write(format, &mut writer) {
        Ok(end) if ends => {
            // Where nobody reads any more, this is for nobody as well.
            let _ = writer.write_all(end.lines(END_LEN_MAX).as_bytes());
        }
        Ok(_) => {}
        Err(error) if format == DiffFormat::Json => {
            // Where nobody reads any more, this is for nobody as well.
            let _ = writer.write_all(error_line(&difference.refused(error)).as_bytes());
        }
        Err(error) => {
            let refused = difference.refused(error);
            let end = error_end(&refused, END_LEN_MAX).filter(|_| ends);
            // Without its end, nothing in these forms says that it is not all: the answer has to break off.
            let Some(end) = end else { return writer.break_off(refused) };
            let _ = writer.write_all(end.as_bytes());
        }
    }
    let _ = writer.flush();
}

/// What SQL gives of a version: one statement that reads, bounded in time and rows. For keys of the replica.
///
/// One that takes longer than the server's `--query-timeout` is refused with 400: it would the next time.
#[utoipa::path(
    post, path = "/api/v1/replicas/{name}/query", tag = "rows",
    params(("name" = String, Path, description = "NAMESPACE/PATH")),
    request_body = Question,
    responses((status = 200, body = QueryAnswer)),
)]
pub(super) async fn query(mut asked: Asked) -> Result<Response, Refused> {
    let question: Question = asked.json().await?;
    let cancel = Cancel::default();
    let flag = cancel.flag();
    let found = asked.long(move |backend, caller, name| backend.query(&caller, name, &question, flag));
    Ok(answer::json(&found.await?))
}

/// Hands what is written to the socket, a chunk at a time, and waits where that is slow.
struct Chunks {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    /// How long the reader may take for a chunk.
    patience: Duration,
    runtime: Handle,
    waiting: Vec<u8>,
}

impl Chunks {
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()> {
        let sent = self.runtime.block_on(timeout(self.patience, self.chunks.send(chunk)));
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn break_off(&self, refused: Refused) {
        let _ = self.send(Err(io::Error::other(refused)));
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.waiting);
        self.send(Ok(chunk.into()))
    }
}
