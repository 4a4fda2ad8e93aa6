//! Version 3: what the batches are to be a difference to.
//!
//! 1. The replica's own content, where the origin knows it.
//! 2. Else the base that the origin last agreed on, where the replica has it.
//! 3. Else what the page trees show.
//! 4. Nothing, where the replica has nothing or pages of another size.
//!
//! The ground is said before the origin's pages begin their work, so that a replica that must refuse
//! does so early.

use super::batches::Batches;
use super::trees::Trees;
use super::{Facts, OriginIo, OriginRequest, State, form};
use crate::conversation::Violation;
use crate::conversation::io::Stop;
use crate::exchange::{Base, Ground, Since, StagedBlock, Wanted};
use crate::message::limits::STAGED_RUNS_MAX;
use crate::message::{Opening, OriginMessage};
use crate::page::PageCount;

/// Collecting what a cut push left.
pub(super) struct Staging {
    opening: Opening,
    staged: Vec<StagedBlock>,
    runs: usize,
}

impl Staging {
    pub(super) fn new(opening: Opening) -> Self {
        Staging { opening, staged: Vec::new(), runs: 0 }
    }

    pub(super) fn on_staged(
        mut self,
        blocks: Vec<StagedBlock>,
        facts: &Facts,
        io: &mut OriginIo,
    ) -> Result<State, Stop> {
        self.runs += blocks.iter().map(|block| block.runs.len()).sum::<usize>();
        self.staged.extend(blocks);
        if self.staged.len() > self.opening.staged as usize || self.runs > STAGED_RUNS_MAX {
            return Err(Violation::Staged.into());
        }
        self.next(facts, io)
    }

    /// Goes on once all are there.
    pub(super) fn next(self, facts: &Facts, io: &mut OriginIo) -> Result<State, Stop> {
        if self.staged.len() < self.opening.staged as usize {
            return Ok(State::Staging(self));
        }
        let judging = Judging { opening: self.opening, staged: self.staged };
        Ok(match judging.opening.base {
            None => judging.on_known(false, facts, io),
            Some(held) if facts.base.is_some_and(|own| own.root == held.root) => {
                judging.on_known(true, facts, io)
            }
            Some(held) => {
                io.ask_long(OriginRequest::Knows(held));
                State::Judging(judging)
            }
        })
    }
}

/// Finding out whether the replica's content is known.
pub(super) struct Judging {
    opening: Opening,
    staged: Vec<StagedBlock>,
}

impl Judging {
    pub(super) fn on_known(self, known: bool, facts: &Facts, io: &mut OriginIo) -> State {
        let Judging { opening, staged } = self;
        let held = match opening.geometry {
            Some(held) if held.page_count > PageCount::ZERO && held.page_size == facts.geometry.page_size => {
                held
            }
            _ => {
                let ground = Ground::Nothing { recognised: known };
                return settled(ground, Since::Nothing, staged, facts, io);
            }
        };
        match (opening.base, facts.base) {
            (Some(base), _) if known => settled(Ground::Held, Since::Base(base), staged, facts, io),
            (_, Some(base)) => {
                say(Ground::Proposed(base), facts, io);
                State::Proposing(Proposing { base, held: held.page_count, staged })
            }
            (_, None) => Trees::start(facts, held.page_count, staged, io),
        }
    }
}

/// Waiting whether the replica has the base that the origin last agreed on.
pub(super) struct Proposing {
    base: Base,
    held: PageCount,
    staged: Vec<StagedBlock>,
}

impl Proposing {
    pub(super) fn on_base(self, accepted: bool, facts: &Facts, io: &mut OriginIo) -> Result<State, Stop> {
        if accepted {
            return Ok(begin(Since::Base(self.base), self.staged, io));
        }
        Ok(Trees::start(facts, self.held, self.staged, io))
    }
}

/// Says the ground and begins.
pub(super) fn settled(
    ground: Ground,
    since: Since,
    staged: Vec<StagedBlock>,
    facts: &Facts,
    io: &mut OriginIo,
) -> State {
    say(ground, facts, io);
    begin(since, staged, io)
}

fn say(ground: Ground, facts: &Facts, io: &mut OriginIo) {
    OriginMessage::Base { ground, push_id: facts.push_id }.encode(&mut io.out);
}

fn begin(since: Since, staged: Vec<StagedBlock>, io: &mut OriginIo) -> State {
    let batches = Batches::new(staged.len());
    io.ask_long(OriginRequest::Begin(Wanted { since, staged, form: form(3) }));
    State::Batches(batches)
}
