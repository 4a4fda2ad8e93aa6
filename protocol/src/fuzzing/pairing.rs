//! Target: the two sides of a conversation against each other, in every version, over a wire that cuts
//! as the input says. Whatever both had before, the replica ends with what the origin has.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::conversation::STEPS_MAX;
use super::database::{Database, PAGE_SIZE};
use super::input::Input;
use crate::block::{Block, BlockBuilder, Effort};
use crate::canonical::HeaderFields;
use crate::conversation::{
    Conversation, Facts, Origin, OriginAnswer, OriginOptions, OriginRequest, Replica, ReplicaAnswer,
    ReplicaOptions, ReplicaRequest, Step,
};
use crate::exchange::{Base, Committed, End, Ground, Held, Proof, Since, StagedBlock, Wanted, staged_hash};
use crate::page::PageNumber;

/// The next block of the pages that are wanted, from `index` on.
pub(super) fn block(
    database: &Database,
    index: &mut usize,
    wanted: impl Fn(PageNumber) -> bool,
) -> Option<Block> {
    let mut builder = BlockBuilder::new(PAGE_SIZE);
    while let Some(number) = PageNumber::from_index(*index as u32).filter(|_| !builder.is_full()) {
        let Some(page) = database.page(number) else { break };
        *index += 1;
        if wanted(number) {
            builder.push(number, &page);
        }
    }
    builder.finish(Effort::Fast)
}

pub(super) fn proof(database: &Database) -> Proof {
    Proof {
        page_count: database.geometry().page_count,
        root: database.root(),
        fields: HeaderFields::default(),
    }
}

/// The target.
pub fn exchange(data: &[u8]) {
    let mut input = Input(data);
    let theirs = Database::new(&mut input);
    let ours = theirs.changed(&mut input);
    let base = theirs.changed(&mut input);
    let mut origin = OriginSide::new(ours.clone(), &theirs, &base, &mut input);
    let mut replica = ReplicaSide::new(theirs, base, &ours, &mut input);
    let (mut to_replica, mut to_origin) = (Wire::default(), Wire::default());
    for _ in 0..STEPS_MAX {
        let origin_waits = origin.step(&mut to_replica, &mut to_origin, &mut input);
        let replica_waits = replica.step(&mut to_origin, &mut to_replica, &mut input);
        if origin.done && replica.result.is_some() {
            break;
        }
        assert!(!(origin_waits && replica_waits), "both sides wait");
    }
    assert!(origin.done, "no end");
    assert_eq!(replica.result, Some(ours));
    assert_eq!(origin.origin.counts().bytes_sent, replica.replica.counts().bytes_received);
}

/// Bytes under way, as runs.
#[derive(Default)]
struct Wire(VecDeque<Bytes>);

impl Wire {
    /// A run, or as much of it as the input says.
    fn receive(&mut self, input: &mut Input<'_>) -> Option<Bytes> {
        let len = usize::from(input.u8());
        let run = self.0.front_mut()?;
        if len == 0 || len >= run.len() {
            return self.0.pop_front();
        }
        Some(run.split_to(len))
    }
}

struct OriginSide {
    origin: Origin,
    database: Database,
    /// The contents that it can tell a difference to.
    known: Vec<Database>,
    wanted: Vec<bool>,
    index: usize,
    done: bool,
}

impl OriginSide {
    fn new(database: Database, theirs: &Database, base: &Database, input: &mut Input<'_>) -> Self {
        let mut known = Vec::new();
        if input.flag() {
            known.push(theirs.clone());
        }
        let proposed = input.flag().then(|| {
            known.push(base.clone());
            Base { version: None, root: base.root() }
        });
        let facts = Facts { geometry: database.geometry(), base: proposed, push_id: None };
        let options =
            OriginOptions { version_max: input.u8() % 3 + 1, await_close: false, ..OriginOptions::default() };
        OriginSide {
            origin: Origin::new(options, facts),
            database,
            known,
            wanted: Vec::new(),
            index: 0,
            done: false,
        }
    }

    /// Goes one step on; true where it waits for bytes that are not there.
    fn step(&mut self, out: &mut Wire, incoming: &mut Wire, input: &mut Input<'_>) -> bool {
        if self.done {
            return true;
        }
        match self.origin.poll().unwrap_or_else(|stop| panic!("the origin: {stop:?}")) {
            Step::Send(bytes) => out.0.push_back(bytes),
            Step::Need(request) => self.answer(request),
            Step::NeedInput => match incoming.receive(input) {
                Some(bytes) => self.origin.handle_input(bytes),
                None => return true,
            },
            Step::Event(_) => {}
            Step::Done => self.done = true,
        }
        false
    }

    fn answer(&mut self, request: OriginRequest) {
        match request {
            OriginRequest::Knows(base) => {
                let known = self.known.iter().any(|known| known.root() == base.root);
                self.origin.answer(OriginAnswer::Knows(known));
            }
            OriginRequest::GroupHash { first, count } => {
                self.origin.answer(OriginAnswer::GroupHash(self.database.group_hash(first, count)));
            }
            OriginRequest::Node(node) => self.origin.answer(OriginAnswer::Node(self.database.node(node))),
            OriginRequest::Begin(wanted) => {
                let reused = self.begin(&wanted);
                self.origin.answer(OriginAnswer::Begun { reused, pages: None });
            }
            OriginRequest::NextPage => {
                let index = (self.index..self.wanted.len()).find(|index| self.wanted[*index]);
                let number = index.and_then(|index| PageNumber::from_index(index as u32));
                self.index = index.map_or(self.index, |index| index + 1);
                let page = number.and_then(|number| self.database.page(number).map(|page| (number, page)));
                self.origin
                    .answer(OriginAnswer::Page(page.as_ref().map(|(number, page)| (*number, &page[..]))));
            }
            OriginRequest::NextBlock => {
                let wanted = &self.wanted;
                let block = block(&self.database, &mut self.index, |number| wanted[number.index() as usize]);
                self.origin.answer(OriginAnswer::Block(block));
            }
            OriginRequest::Proof => self.origin.answer(OriginAnswer::Proof(proof(&self.database))),
            OriginRequest::Acknowledge(_) => self.origin.answer(OriginAnswer::Acknowledged),
        }
    }

    /// Finds out what to send, and which staged blocks need not be.
    fn begin(&mut self, wanted: &Wanted) -> Vec<u32> {
        let numbers = (0..self.database.0.len() as u32).filter_map(PageNumber::from_index);
        self.wanted = match &wanted.since {
            Since::Nothing => numbers.map(|_| true).collect(),
            Since::Base(base) => {
                let base = self.known.iter().find(|known| known.root() == base.root).expect("a known base");
                numbers.map(|number| base.page(number) != self.database.page(number)).collect()
            }
            Since::Compared { differing, held } => {
                numbers.map(|number| differing.contains(number.get()) || !held.contains(number)).collect()
            }
        };
        let reused = (0u32..).zip(&wanted.staged).filter(|(_, staged)| self.is_as_staged(staged));
        let reused: Vec<u32> = reused.map(|(place, _)| place).collect();
        for place in &reused {
            for number in pages_of(&wanted.staged[*place as usize]) {
                self.wanted[number.index() as usize] = false;
            }
        }
        reused
    }

    fn is_as_staged(&self, staged: &StagedBlock) -> bool {
        let hashes: Option<Vec<_>> = pages_of(staged).map(|number| self.database.page_hash(number)).collect();
        hashes.is_some_and(|hashes| staged_hash(&hashes) == staged.hash)
    }
}

fn pages_of(staged: &StagedBlock) -> impl Iterator<Item = PageNumber> + '_ {
    let numbers = staged.runs.iter().flat_map(|(first, len)| (0..u32::from(*len)).map(|n| first.get() + n));
    numbers.filter_map(PageNumber::new)
}

struct ReplicaSide {
    replica: Replica,
    database: Database,
    /// A content that it can go back to, beside its own.
    base: Option<Database>,
    staged: Vec<(StagedBlock, BTreeMap<PageNumber, u8>)>,
    ground: Database,
    taken: BTreeMap<PageNumber, u8>,
    result: Option<Database>,
}

impl ReplicaSide {
    fn new(database: Database, base: Database, origin: &Database, input: &mut Input<'_>) -> Self {
        let options = ReplicaOptions { version_max: input.u8() % 3 + 1, ..ReplicaOptions::default() };
        let base = input.flag().then_some(base);
        let mut staged = Vec::new();
        for _ in 0..input.u8() % 4 {
            // What a cut push sent: pages of the origin as it was, perhaps changed since.
            let content = origin.changed(input);
            let first = u32::from(input.u16() % 700);
            let numbers = (first..first + 1 + u32::from(input.u8() % 40)).filter_map(PageNumber::from_index);
            staged.extend(stage(&content, numbers));
        }
        let ground = Database(Vec::new());
        ReplicaSide {
            replica: Replica::new(options),
            database,
            base,
            staged,
            ground,
            taken: BTreeMap::new(),
            result: None,
        }
    }

    fn step(&mut self, out: &mut Wire, incoming: &mut Wire, input: &mut Input<'_>) -> bool {
        match self.replica.poll().unwrap_or_else(|stop| panic!("the replica: {stop:?}")) {
            Step::Send(bytes) => out.0.push_back(bytes),
            Step::Need(request) => {
                let answer = self.answer(request, input);
                self.replica.answer(answer);
            }
            Step::NeedInput => match incoming.receive(input) {
                Some(bytes) => self.replica.handle_input(bytes),
                None => return true,
            },
            Step::Event(_) => {}
            Step::Done => return true,
        }
        false
    }

    fn answer(&mut self, request: ReplicaRequest, input: &mut Input<'_>) -> ReplicaAnswer {
        match request {
            ReplicaRequest::Begin { version, .. } => {
                let there = !self.database.0.is_empty();
                let root = (there && version == 3 && input.flag()).then(|| self.database.root());
                let base = root.map(|root| Base { version: None, root });
                ReplicaAnswer::Held(Held { geometry: there.then(|| self.database.geometry()), base })
            }
            ReplicaRequest::Staged => {
                ReplicaAnswer::Staged(self.staged.iter().map(|(staged, _)| staged.clone()).collect())
            }
            ReplicaRequest::GroupHash { first, count } => {
                ReplicaAnswer::GroupHash(self.database.group_hash(first, count))
            }
            ReplicaRequest::Node(node) => ReplicaAnswer::Node(self.database.node(node)),
            ReplicaRequest::Accept { ground, .. } => ReplicaAnswer::Accepted(self.accept(ground)),
            ReplicaRequest::Reuse(places) => {
                for place in places {
                    self.taken.extend(self.staged[place as usize].1.iter().map(|(n, fill)| (*n, *fill)));
                }
                ReplicaAnswer::Taken
            }
            ReplicaRequest::TakePage { number, page } => {
                self.taken.insert(number, page[0]);
                ReplicaAnswer::Taken
            }
            ReplicaRequest::TakeBlock(block) => {
                let mut pages = Vec::new();
                block.decode(&mut pages).unwrap();
                self.taken
                    .extend(block.pages().zip(pages.chunks_exact(PAGE_SIZE.bytes()).map(|page| page[0])));
                ReplicaAnswer::Taken
            }
            ReplicaRequest::Finish(end) => {
                self.finish(end);
                ReplicaAnswer::Finished(Committed::default())
            }
        }
    }

    fn accept(&mut self, ground: Ground) -> bool {
        self.ground = match ground {
            Ground::Nothing { .. } => Database(Vec::new()),
            Ground::Held | Ground::Compared => self.database.clone(),
            Ground::Proposed(proposed) => match &self.base {
                Some(base) if base.root() == proposed.root => base.clone(),
                _ => return false,
            },
        };
        true
    }

    fn finish(&mut self, end: End) {
        let count = match end {
            End::PageCount(count) => count,
            End::Proof(proof) => proof.page_count,
        };
        let result = self.ground.with(&self.taken, count);
        if let End::Proof(proof) = end {
            assert_eq!(proof.root, result.root(), "the proof");
        }
        self.result = Some(result);
    }
}

fn stage(
    content: &Database,
    numbers: impl Iterator<Item = PageNumber>,
) -> Option<(StagedBlock, BTreeMap<PageNumber, u8>)> {
    let pages: BTreeMap<_, _> =
        numbers.filter_map(|number| content.page(number).map(|page| (number, page[0]))).collect();
    let (first, len) = (*pages.first_key_value()?.0, pages.len() as u16);
    let hashes: Vec<_> = pages.keys().filter_map(|number| content.page_hash(*number)).collect();
    Some((StagedBlock { runs: vec![(first, len)], hash: staged_hash(&hashes) }, pages))
}
