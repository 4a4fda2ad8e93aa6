//! What an exchange asks of a live file that is sent.

use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::exchange::{Base, Committed, Form, OriginPages, Proof, PushId, Since, Wanted};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

use super::{Ground, LiveOrigin};
use crate::durable::make_durable;
use crate::error::Error;
use crate::image::{Compare, Job, Select};
use crate::pages::Pages;
use crate::snapshot::Snapshot;

impl OriginPages for LiveOrigin {
    type Error = Error;

    fn geometry(&mut self) -> Result<Geometry, Error> {
        if let Some(geometry) = self.geometry {
            return Ok(geometry);
        }
        let geometry = match &self.kept {
            Some(kept) if self.kept_is_current()? => kept.geometry(),
            kept => {
                let snapshot = Snapshot::open(&self.path)?;
                self.is_another = match kept {
                    Some(kept) => snapshot.is_made_from_another(kept.fields(), self.kept_fingerprint())?,
                    None => false,
                };
                snapshot.geometry()
            }
        };
        self.geometry = Some(geometry);
        Ok(geometry)
    }

    fn base(&mut self) -> Result<Option<Base>, Error> {
        let page_size = self.geometry()?.page_size;
        let ours = |base: &Base| {
            self.kept
                .as_ref()
                .is_some_and(|kept| kept.root() == base.root && kept.geometry().page_size == page_size)
        };
        if self.is_another {
            tracing::debug!(path = %self.path.display(), "not made from what was agreed on: older, or another file");
            return Ok(None);
        }
        Ok(self.options.base.filter(ours))
    }

    fn push_id(&mut self) -> Result<Option<PushId>, Error> {
        Ok(self.options.push_id)
    }

    fn knows(&mut self, base: &Base) -> Result<bool, Error> {
        if !self.is_another && self.kept.as_ref().is_some_and(|kept| kept.root() == base.root) {
            return Ok(true);
        }
        // What is not what the replica has needs no scan: the base is proposed next.
        if self.root_without_scan()?.is_some_and(|root| root != base.root) {
            return Ok(false);
        }
        Ok(self.scanned()?.hashes.root() == base.root)
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        self.legacy()?.group_hash(first, count)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        self.scanned()?.hashes.children(node)
    }

    fn begin(&mut self, wanted: Wanted) -> Result<(), Error> {
        let raw = wanted.form == Form::Pages;
        let sending = match &wanted.since {
            Since::Compared { differing, held } => {
                if !raw {
                    self.scanned()?;
                }
                let (differing, held) = (differing.clone(), held.get());
                self.send_compared(differing, held, wanted)?
            }
            Since::Base(base) if !raw => self.send_since(self.ground_of(base)?, wanted)?,
            Since::Nothing | Since::Base(_) => {
                let compare = if raw { Compare::Not } else { Compare::Tree(None) };
                let select = Select { all: true, ..Select::default() };
                let job = Job { read: Pages::All, compare, select, raw };
                let snapshot = self.snapshot()?;
                self.send(snapshot, Ground::Nothing, job, wanted)?
            }
        };
        self.sending = Some(sending);
        Ok(())
    }

    fn reused(&mut self) -> Result<Vec<u32>, Error> {
        let sending = self.sending.as_mut().ok_or(Error::Stopped)?;
        let Some(reused) = sending.reused.take() else { return Ok(Vec::new()) };
        match reused.recv() {
            Ok(reused) => Ok(reused),
            // The thread ended before it came so far: its error says why.
            Err(_) => sending.join().map(|()| Vec::new()),
        }
    }

    fn pages_to_send(&mut self) -> Result<Option<u32>, Error> {
        Ok(self.sending.as_ref().and_then(|sending| sending.to_send))
    }

    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, Error> {
        let sending = self.sending.as_mut().ok_or(Error::Stopped)?;
        if page.len() != sending.geometry.page_size.bytes() {
            return Err(Error::Invalid("a buffer of another length than a page"));
        }
        loop {
            if let Some(number) = sending.pages.next(page) {
                return Ok(Some(number));
            }
            match sending.next_block()? {
                Some(block) => sending.pages.fill(block)?,
                None => return Ok(None),
            }
        }
    }

    fn next_block(&mut self) -> Result<Option<Block>, Error> {
        self.sending.as_mut().ok_or(Error::Stopped)?.next_block()
    }

    fn proof(&mut self) -> Result<Proof, Error> {
        if self.options.push_id.is_some() {
            // The replica commits after this.
            make_durable(&self.path)?;
        }
        let sending = self.sending.as_ref().ok_or(Error::Stopped)?;
        let root = self.root_of(sending)?;
        Ok(Proof { page_count: sending.geometry.page_count, root, fields: sending.fields })
    }

    fn acknowledged(&mut self, _: Committed) -> Result<(), Error> {
        Ok(())
    }
}
