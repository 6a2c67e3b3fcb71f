//! State that does not fit in memory: an operator with cold keys on disk.
//!
//! Input, rule and output are those of the operator inside. State: what the operator remembers of the keys that were touched lately
//! (hot); of all others, sorted runs of rows on disk (cold). When memory is short the operator's whole state is written as a run, by the places
//! of its keys, and it begins anew; when a key comes that was not touched since, what the runs know of it is read back and loaded
//! first. What is newest of a key replaces all that is older, so a run has all of a key, or that there is nothing left.
//! Runs are merged so that each is several times as large as the next newer one (a log-structured merge-tree: O'Neil, Cheng,
//! Gawlick, O'Neil, "The log-structured merge-tree", Acta Informatica 33, 1996).
//!
//! Only operators whose inputs all come by key, and that forget nothing by the watermark, are wrapped in it: of others the keys that
//! are due would have to be known. Released: runs go with their operator, and when others replace them.
//!
//! Saved: the runs, once for each time that the state is put aside, and what the operator inside saves of what came afterwards. What
//! another process saves is all of it as rows, as its files are not within reach.

mod aside;
mod cold;
mod filter;
mod memory;
mod place;
mod run;

use hashbrown::HashSet;
use tidemill_delta::{Delta, NO_WATERMARK};
use tidemill_plan::{Node, Op, Route};

pub use self::aside::{Aside, rows_of};
use self::cold::Cold;
pub use self::memory::Memory;
use self::memory::Owner;
use self::place::places_of;
pub use self::run::RunName;
pub(crate) use self::run::WriteError;
use crate::{Entries, EntryShape, Keeps, Operator, OperatorError, StateSize, StepCx};

/// Makes an operator without state.
pub(crate) type Make = Box<dyn Fn() -> Result<Box<dyn Operator>, OperatorError> + Send>;

/// Bytes of a hash in a set of them, estimated.
const HASH: usize = 16;

/// See the module.
pub struct Spilled {
    make: Make,
    hot: Box<dyn Operator>,
    /// For each input: the columns that make the key.
    keys: Vec<Vec<usize>>,
    /// For each part of what the operator saves: where it has these columns.
    saved_keys: Vec<Vec<usize>>,
    /// The hashes of the keys that were touched since the last run was written; only kept once there is one. Never walked.
    touched: HashSet<u64>,
    cold: Cold,
    share: memory::Share,
    /// Recomputations of operators that were given up.
    recomputed: u64,
    saves: Saves,
    /// Changes of entries that nobody has asked for yet, by kind, eldest first.
    unsaved: Vec<Vec<Entries>>,
    /// The runs are others than those that were saved last.
    untold: bool,
    /// The state was put aside since somebody asked.
    was_put_aside: bool,
    /// The disk did not take the state: it is tried again when there are so many bytes of it.
    refused: usize,
    /// Nobody knows any more which entries have changed since they were saved, so that the next save has to be of all.
    owes_all: bool,
}

/// How what an operator remembers is saved now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saves {
    /// Not at all.
    Nothing,
    /// As rows.
    Rows,
    /// As runs, and rows that came after them.
    Runs,
}

/// Whether a node's operator can be wrapped: then the key columns of its inputs.
pub(crate) fn keys_of(node: &Node) -> Option<Vec<Vec<usize>>> {
    let fits = match &node.op {
        Op::Join(_) | Op::Aggregate(_) | Op::TopN(_) | Op::Over(_) => !node.op.forgets(),
        _ => false,
    };
    let key = |route: &Route| match route {
        Route::Hash(columns) if !columns.is_empty() => Some(columns.clone()),
        _ => None,
    };
    if fits { node.inputs.iter().map(|edge| key(&edge.route)).collect() } else { None }
}

impl Spilled {
    /// An operator without state but for the runs that it had in a checkpoint, whose inputs have these key columns.
    pub(crate) fn new(
        make: Make,
        keys: Vec<Vec<usize>>,
        memory: &Memory,
        owner: Owner,
        saves: Saves,
    ) -> Result<Self, OperatorError> {
        let hot = make()?;
        let saved_keys = match hot.keeps() {
            Keeps::Rows => Some(keys.clone()),
            Keeps::Entries => hot.entry_shapes().iter().map(|shape| places(shape, &keys[0])).collect::<Option<_>>(),
            Keeps::Nothing => None,
        };
        let saved_keys = saved_keys.ok_or_else(|| OperatorError("its state has no keys to be put aside by".into()))?;
        let unsaved = vec![Vec::new(); saved_keys.len()];
        Ok(Spilled {
            make,
            hot,
            keys,
            cold: Cold::new(memory.shelf(), saved_keys.len(), memory.claim(owner)),
            saved_keys,
            touched: HashSet::new(),
            share: memory.share(),
            recomputed: 0,
            saves,
            unsaved,
            untold: false,
            was_put_aside: false,
            refused: 0,
            owes_all: false,
        })
    }

    /// Whether it is saved as runs.
    pub(crate) fn saves_runs(&self) -> bool {
        self.saves == Saves::Runs && (!self.cold.is_empty() || self.owes_all)
    }

    /// Whether the next save has to be of all.
    pub(crate) fn owes_all(&self) -> bool {
        self.owes_all
    }

    /// The runs, if they are others than when this was asked last; or, with `all`, in any case.
    pub(crate) fn new_runs(&mut self, all: bool) -> Option<Vec<Aside>> {
        (std::mem::take(&mut self.untold) || all).then(|| self.cold.runs())
    }

    /// Whether the state was put aside since this was asked last.
    pub(crate) fn was_put_aside(&mut self) -> bool {
        std::mem::take(&mut self.was_put_aside)
    }

    /// How many rows are in memory.
    pub(crate) fn rows_in_memory(&self) -> usize {
        self.hot.state().rows
    }

    /// Takes in what was saved after the runs; of entries, `gone` has the keys of which none is left.
    pub(crate) fn load_after_runs(
        &mut self,
        cx: &mut StepCx<'_>,
        mut saved: Vec<Vec<Delta>>,
        gone: Vec<Vec<Delta>>,
    ) -> Result<(), OperatorError> {
        if self.cold.is_empty() {
            self.hot.load(cx, &mut saved)?;
            return self.settle();
        }
        let (mut wanted, mut places) = (Vec::new(), Vec::new());
        for of_parts in [&saved, &gone] {
            for (key, deltas) in self.saved_keys.iter().zip(of_parts) {
                for delta in deltas {
                    places_of(&delta.rows, key, &mut places)?;
                    wanted.extend(places.iter().copied().filter(|place| self.touched.insert(*place)));
                }
            }
        }
        wanted.sort_unstable();
        let mut parts = self.cold.read(&wanted)?;
        if self.hot.keeps() == Keeps::Entries {
            let keys: Vec<usize> = self.hot.entry_shapes().iter().map(|shape| shape.key).collect();
            for (((part, saved), gone), key) in parts.iter_mut().zip(saved).zip(gone).zip(keys) {
                *part = memory::entries_after(part, saved, gone, key)?;
            }
        } else {
            parts.iter_mut().zip(&mut saved).for_each(|(part, saved)| part.append(saved));
        }
        self.hot.load(cx, &mut parts)?;
        self.settle()
    }

    /// Takes in again what is known of the keys that are about to be touched.
    fn fetch(&mut self, inputs: &[Vec<Delta>]) -> Result<(), OperatorError> {
        if self.cold.is_empty() {
            return Ok(());
        }
        let (mut wanted, mut places) = (Vec::new(), Vec::new());
        for (input, deltas) in inputs.iter().enumerate() {
            for delta in deltas {
                places_of(&delta.rows, &self.keys[input], &mut places)?;
                wanted.extend(places.iter().copied().filter(|place| self.touched.insert(*place)));
            }
        }
        wanted.sort_unstable();
        self.load(&wanted)
    }

    fn load(&mut self, wanted: &[u64]) -> Result<(), OperatorError> {
        let mut parts = self.cold.read(wanted)?;
        if parts.iter().all(Vec::is_empty) {
            return Ok(());
        }
        // What is loaded counts as saved.
        self.keep_unsaved()?;
        let mut errors = Vec::new();
        let mut cx = StepCx { epoch: 0, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
        self.hot.load(&mut cx, &mut parts)
    }

    fn keep_unsaved(&mut self) -> Result<(), OperatorError> {
        if self.saves != Saves::Nothing && self.hot.keeps() == Keeps::Entries {
            for (kind, entries) in self.hot.entries(false)?.into_iter().enumerate() {
                if entries.rows.num_rows() + entries.gone.num_rows() > 0 {
                    self.unsaved[kind].push(entries);
                }
            }
        }
        Ok(())
    }

    /// Counts what is in memory, and puts the state aside if that is too much.
    fn settle(&mut self) -> Result<(), OperatorError> {
        self.share.set(self.hot.state().bytes + self.touched.len() * HASH + self.cold.bytes());
        let hot = self.hot.state().bytes;
        if self.share.is_due(self.cold.bytes()) && hot >= self.refused {
            match self.put_aside() {
                // Where there is a log it is full as well, so that no more rows come than fit.
                Err(WriteError::Disk(error)) if self.saves != Saves::Nothing => {
                    tracing::warn!(%error, "state stays in memory for now");
                    self.refused = hot + hot / 4 + 1;
                }
                other => other?,
            }
            self.share.set(self.hot.state().bytes + self.cold.bytes());
        }
        Ok(())
    }

    /// Writes all that is in memory as a run. If the disk does not take it, it stays where it is.
    pub(crate) fn put_aside(&mut self) -> Result<(), WriteError> {
        if self.saves == Saves::Rows {
            self.keep_unsaved()?;
        }
        self.owes_all |= self.saves == Saves::Runs && self.hot.keeps() == Keeps::Entries;
        let parts = match self.hot.keeps() {
            Keeps::Entries => self.hot.entries(true)?.into_iter().map(|entries| Delta::inserts(entries.rows)).collect(),
            _ => self.hot.rows()?,
        };
        self.cold.write(parts, &self.saved_keys, self.touched.clone())?;
        self.touched.clear();
        self.recomputed += self.hot.recomputations();
        self.hot = (self.make)()?;
        if self.saves == Saves::Runs {
            self.unsaved.iter_mut().for_each(Vec::clear);
        }
        (self.untold, self.was_put_aside, self.refused, self.owes_all) = (true, true, 0, false);
        Ok(())
    }

    /// Takes everything in again.
    fn take_back(&mut self) -> Result<(), OperatorError> {
        let mut cold = self.cold.hashes()?;
        cold.retain(|hash| self.touched.insert(*hash));
        self.load(&cold)?;
        self.touched.clear();
        self.cold.clear();
        Ok(())
    }
}

/// Where entries have the columns of the key.
fn places(shape: &EntryShape, key: &[usize]) -> Option<Vec<usize>> {
    key.iter().map(|column| shape.input_columns.iter().position(|own| own == column)).collect()
}

impl Operator for Spilled {
    fn spilled(&mut self) -> Option<&mut Spilled> {
        Some(self)
    }

    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        self.fetch(inputs)?;
        let out = self.hot.step(cx, inputs)?;
        self.settle()?;
        Ok(out)
    }

    fn due(&self, watermark: tidemill_delta::Micros) -> bool {
        self.hot.due(watermark)
    }

    fn wants_start(&self) -> bool {
        self.hot.wants_start()
    }

    fn recomputations(&self) -> u64 {
        self.recomputed + self.hot.recomputations()
    }

    fn state(&self) -> StateSize {
        let hot = self.hot.state();
        let bytes = hot.bytes + self.touched.len() * HASH + self.cold.bytes();
        StateSize { rows: hot.rows + self.cold.rows(), bytes }
    }

    fn keeps(&self) -> Keeps {
        self.hot.keeps()
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        let mut rows: Vec<Vec<Delta>> = self.hot.rows()?.into_iter().map(|delta| vec![delta]).collect();
        let mut cold = self.cold.hashes()?;
        cold.retain(|hash| !self.touched.contains(hash));
        for (own, more) in rows.iter_mut().zip(self.cold.read(&cold)?) {
            own.extend(more);
        }
        rows.iter().map(|list| Ok(Delta::concat(&list[0].rows.schema(), list)?)).collect()
    }

    fn entry_shapes(&self) -> Vec<EntryShape> {
        self.hot.entry_shapes()
    }

    fn entries(&mut self, all: bool) -> Result<Vec<Entries>, OperatorError> {
        if all {
            self.take_back()?;
            self.unsaved.iter_mut().for_each(Vec::clear);
            return self.hot.entries(true);
        }
        let keys: Vec<usize> = self.hot.entry_shapes().iter().map(|shape| shape.key).collect();
        let now = self.hot.entries(false)?;
        let merged = now.into_iter().zip(&mut self.unsaved).zip(keys);
        merged.map(|((now, before), key)| memory::newest(std::mem::take(before), now, key)).collect()
    }

    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        self.hot.load(cx, saved)?;
        self.settle()
    }
}
