//! Writing a large object in parts, in bounded memory: [`PARTS_IN_FLIGHT_MAX`] parts are on their way
//! to the store while the next one fills.

use std::collections::VecDeque;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinHandle;

use super::Store;
use crate::error::Error;

/// Bytes of a part. S3 wants 5 MiB or more, and all but the last of one size.
const PART_BYTES: usize = 8 << 20;

/// Parts that are being written while the next one fills.
const PARTS_IN_FLIGHT_MAX: usize = 1;

type Parts = VecDeque<JoinHandle<object_store::Result<()>>>;

/// An object being written. Nothing of it is visible before it is complete; dropped, nothing stays.
#[derive(Debug)]
pub(crate) struct Upload {
    store: Store,
    path: Path,
    /// What is not yet on its way.
    buffer: VecDeque<Bytes>,
    buffered: usize,
    /// Opened with the first whole part: a small object is written in one request.
    multipart: Option<Box<dyn MultipartUpload>>,
    in_flight: Parts,
}

/// An object that is being made durable in the background.
#[derive(Debug)]
pub(crate) struct Completing {
    store: Store,
    path: Path,
    task: JoinHandle<object_store::Result<()>>,
}

impl Upload {
    pub(crate) fn new(store: &Store, path: Path) -> Upload {
        Upload {
            store: store.clone(),
            path,
            buffer: VecDeque::new(),
            buffered: 0,
            multipart: None,
            in_flight: VecDeque::new(),
        }
    }

    pub(crate) fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.buffered += bytes.len();
        self.buffer.push_back(bytes);
        while self.buffered >= PART_BYTES {
            let part = self.take(PART_BYTES);
            self.send(part).map_err(|source| Error::store(self.path.as_ref(), source))?;
        }
        Ok(())
    }

    /// Begins to make it durable; [`Completing::wait`] says when it is.
    pub(crate) fn complete(mut self) -> Completing {
        let store = self.store.clone();
        let path = self.path.clone();
        let last = self.take(self.buffered);
        let multipart = self.multipart.take();
        let mut in_flight = std::mem::take(&mut self.in_flight);
        let objects = store.objects.clone();
        let target = path.clone();
        let task = store.runtime.spawn(async move {
            let Some(mut multipart) = multipart else {
                return objects.put(&target, last).await.map(drop);
            };
            let outcome = async {
                settle(&mut in_flight, 0).await?;
                if last.content_length() > 0 {
                    multipart.put_part(last).await?;
                }
                multipart.complete().await.map(drop)
            };
            let outcome = outcome.await;
            if outcome.is_err() {
                // Whatever it says, the error that matters is the one above; leftovers are swept.
                let _ = multipart.abort().await;
            }
            outcome
        });
        Completing { store, path, task }
    }

    fn send(&mut self, part: PutPayload) -> object_store::Result<()> {
        let runtime = self.store.runtime.clone();
        runtime.block_on(async {
            let multipart = match &mut self.multipart {
                Some(multipart) => multipart,
                none => none.insert(self.store.objects.put_multipart(&self.path).await?),
            };
            settle(&mut self.in_flight, PARTS_IN_FLIGHT_MAX - 1).await?;
            self.in_flight.push_back(runtime.spawn(multipart.put_part(part)));
            Ok(())
        })
    }

    fn take(&mut self, mut len: usize) -> PutPayload {
        self.buffered -= len;
        let mut part = Vec::new();
        while len > 0 {
            let Some(mut bytes) = self.buffer.pop_front() else { break };
            let taken = bytes.split_to(len.min(bytes.len()));
            len -= taken.len();
            part.push(taken);
            if !bytes.is_empty() {
                self.buffer.push_front(bytes);
            }
        }
        part.into_iter().collect()
    }
}

/// Waits until at most `left` parts are on their way.
async fn settle(parts: &mut Parts, left: usize) -> object_store::Result<()> {
    while parts.len() > left {
        let Some(part) = parts.pop_front() else { break };
        part.await??;
    }
    Ok(())
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(mut multipart) = self.multipart.take() {
            let mut in_flight = std::mem::take(&mut self.in_flight);
            self.store.runtime.spawn(async move {
                let _ = settle(&mut in_flight, 0).await;
                let _ = multipart.abort().await;
            });
        }
    }
}

impl Completing {
    /// Returns when the object is durable.
    pub(crate) fn wait(self) -> Result<(), Error> {
        let outcome = match self.store.runtime.block_on(self.task) {
            Ok(outcome) => outcome,
            Err(gone) => Err(object_store::Error::from(gone)),
        };
        outcome.map_err(|source| Error::store(self.path.as_ref(), source))
    }
}
