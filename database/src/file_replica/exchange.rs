//! What an exchange asks of a file that takes pages.

use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::exchange::{Base, Committed, End, Ground, Held, PushId, ReplicaPages, StagedBlock};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

use super::{FileReplica, Found, Taking, Target, Tree, check_first_page};
use crate::error::Error;

impl ReplicaPages for FileReplica {
    type Error = Error;

    fn begin(&mut self, origin: Geometry, version: u8) -> Result<Held, Error> {
        let found = match self.aside {
            Some(_) => self.find_aside(origin, version)?,
            None => self.find(origin, version)?,
        };
        let (geometry, root) = match &found {
            Found::Database(database) => (Some(database.geometry), database.tree.as_ref().map(Tree::root)),
            _ => (None, None),
        };
        let base = root.filter(|_| version >= 3).map(|root| {
            let known = self.options.base.filter(|base| base.root == root);
            Base { version: known.and_then(|base| base.version), root }
        });
        (self.found, self.version, self.origin) = (Some(found), version, Some(origin));
        Ok(Held { geometry, base })
    }

    fn staged(&mut self) -> Result<Vec<StagedBlock>, Error> {
        Ok(Vec::new())
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        let legacy = self.database()?.legacy.as_ref();
        legacy.ok_or(Error::Invalid("a hash of another protocol version"))?.group_hash(first, count)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        let tree = self.database()?.tree.as_mut();
        tree.ok_or(Error::Invalid("a hash of another protocol version"))?.hashes().children(node)
    }

    fn accept(&mut self, ground: Ground, _: Option<PushId>) -> Result<bool, Error> {
        let held = match &self.found {
            Some(Found::Database(database)) => database.tree.as_ref().map(Tree::root),
            _ => None,
        };
        if let Ground::Proposed(base) = ground
            && held != Some(base.root)
        {
            return Ok(false);
        }
        if !self.may_overwrite(ground) {
            return Err(Error::LocallyChanged { path: self.path.clone() });
        }
        self.ground = Some(ground);
        Ok(true)
    }

    fn reuse(&mut self, staged: &[u32]) -> Result<(), Error> {
        if staged.is_empty() { Ok(()) } else { Err(Error::Invalid("staged blocks that are not there")) }
    }

    fn take_page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), Error> {
        match &mut self.target()?.taking {
            Taking::Pages(received) => received.put(number, page),
            Taking::Blocks(_) => Err(Error::Invalid("a page of another protocol version")),
        }
    }

    fn take_block(&mut self, block: Block) -> Result<(), Error> {
        match &mut self.target()?.taking {
            Taking::Blocks(intake) => intake.take(block),
            Taking::Pages(_) => Err(Error::Invalid("a block of another protocol version")),
        }
    }

    fn finish(&mut self, end: End) -> Result<Committed, Error> {
        let page_size = self.origin.ok_or(Error::Stopped)?.page_size;
        let (page_count, proof) = match end {
            End::PageCount(count) => (count, None),
            End::Proof(proof) => (proof.page_count, Some(proof)),
        };
        if page_count == PageCount::ZERO {
            return Err(Error::Invalid("a database without pages"));
        }
        self.target()?;
        let Target { new, taking } = self.intake.take().ok_or(Error::Stopped)?;
        let mut received = match taking {
            Taking::Pages(mut received) => {
                received.forget_past(page_count);
                received.hash_all()?;
                received
            }
            Taking::Blocks(mut intake) => intake.end()?,
        };
        let geometry = Geometry { page_size, page_count };
        check_first_page(&received, geometry)?;
        let before = match &self.found {
            Some(Found::Database(database)) => database.tree.as_ref().map(Tree::root),
            _ => None,
        };
        let root = self.root_of(&mut received, geometry)?;
        if proof.is_some_and(|proof| root != Some(proof.root)) {
            return Err(Error::Proof);
        }
        let fields = proof.map(|proof| proof.fields);
        if self.aside.is_some() {
            self.put_aside(received, geometry, fields)?;
        } else {
            self.done = Some(self.put(new, received, geometry, root, fields)?);
        }
        Ok(Committed { unchanged: before.is_some() && before == root, ..Committed::default() })
    }
}
