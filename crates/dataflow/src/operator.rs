//! What an operator is to the hub: a state machine over one epoch's deltas, without any timely type.

use arrow::array::RecordBatch;
use tidemill_delta::{Delta, Epoch, Micros};

/// A row for which an operator has no answer; it goes to the view's error side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Why.
    pub message: String,
    /// The row as text, shortened.
    pub row: String,
    /// The row's multiplicity: an error is taken back with its row.
    pub weight: i64,
}

/// Why an operator cannot go on; its view stops with this message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct OperatorError(pub String);

impl From<arrow::error::ArrowError> for OperatorError {
    fn from(error: arrow::error::ArrowError) -> Self {
        OperatorError(error.to_string())
    }
}

/// The circumstances of one step.
pub struct StepCx<'a> {
    /// Which epoch.
    pub epoch: Epoch,
    /// Inside of a loop: which round of it. Else 0.
    pub round: u64,
    /// The watermark as of this epoch: the least of the sources that the operator's input is made
    /// from. Never falls from step to step.
    pub watermark: Micros,
    /// Rows without an answer.
    pub errors: &'a mut Vec<RowError>,
}

/// How much an operator remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Rows, groups or entries.
    pub rows: usize,
    /// Bytes of memory, estimated.
    pub bytes: usize,
}

/// In which form an operator's state is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// It remembers nothing.
    #[default]
    Nothing,
    /// What is left of its input's rows. The hub saves what comes in, and now and then, when that has become
    /// much more than is left, [`Operator::rows`].
    Rows,
    /// Entries by key: [`Operator::entries`].
    Entries,
}

/// The columns of one kind of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryShape {
    /// How many leading columns are the key: the entries that a later save has for a key replace all earlier
    /// ones of that key.
    pub key: usize,
    /// For the leading columns that decide where a row of the first input is routed: the number of that
    /// input's column.
    pub input_columns: Vec<usize>,
}

/// Entries of one kind that have changed.
#[derive(Clone, Debug)]
pub struct Entries {
    /// All entries of each key that has changed and still has some; a key may have several rows.
    pub rows: RecordBatch,
    /// The keys that have no entries any more: the key's columns only.
    pub gone: RecordBatch,
}

/// One operator on one worker.
///
/// Deterministic: the sum of its output depends only on its state and the sum of its inputs, not on
/// the order or the batching of rows inside an epoch. It is stepped at most once an epoch (inside of a loop:
/// once a round), with all of the epoch's input, and its output is the net change (a changed group gives at
/// most one row taken back and one row added).
pub trait Operator: Send {
    /// Takes one epoch's input, a list of deltas per input (maybe empty; they are the operator's to
    /// take), and gives what changes.
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError>;

    /// Whether the operator has something to do at this watermark although no rows arrived:
    /// windows to close, state to drop.
    fn due(&self, _watermark: Micros) -> bool {
        false
    }

    /// At the head of a loop: the next round that it has something to do in, whether or not rows come.
    fn next_round(&self) -> Option<u64> {
        None
    }

    /// Whether the operator must be stepped once when its view begins, even without rows: an
    /// aggregate without keys has a row from the start. Only asked on the worker that owns it.
    fn wants_start(&self) -> bool {
        false
    }

    /// How often it has answered by computing over complete inputs; 0 for what is incremental.
    fn recomputations(&self) -> u64 {
        0
    }

    /// What it remembers.
    fn state(&self) -> StateSize {
        StateSize::default()
    }

    /// If what it remembers may be on disk: the operator that takes care of that.
    fn spilled(&mut self) -> Option<&mut crate::spill::Spilled> {
        None
    }

    /// In which form its state is saved. Saving and loading happen between two epochs only.
    fn keeps(&self) -> Keeps {
        Keeps::Nothing
    }

    /// With [`Keeps::Rows`]: for each input, rows that make a new operator behave like this one from now on
    /// when they are loaded, whatever the order of their arrival was. They may have columns of the operator's own behind
    /// those of the input, which are to be kept and loaded with them.
    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        Ok(Vec::new())
    }

    /// With [`Keeps::Entries`]: the kinds of entries, always the same for one plan.
    fn entry_shapes(&self) -> Vec<EntryShape> {
        Vec::new()
    }

    /// With [`Keeps::Entries`]: for each kind the entries that have changed since the last call, or all.
    fn entries(&mut self, _all: bool) -> Result<Vec<Entries>, OperatorError> {
        Ok(Vec::new())
    }

    /// Gives a new operator the state that was saved, maybe by several ones that each had a part of the keys.
    /// `saved` has for each input, or for each kind of entries, deltas; entries are all +1, each key's in one
    /// delta. `cx.watermark` is the watermark when it was saved; rows without an answer were reported then.
    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        match self.keeps() {
            Keeps::Nothing => Ok(()),
            Keeps::Rows => self.step(cx, saved).map(drop),
            Keeps::Entries => Err(OperatorError("an operator that saves entries must load them itself".into())),
        }
    }
}
