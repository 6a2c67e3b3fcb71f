//! One operator runs through; others are saved and loaded again and again, by changing numbers of workers. After every epoch
//! both must have given the same changes. Shared by the tests of what operators save.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use tidemill_dataflow::{Entries, EntryShape, Keeps, Operator, RowError, StepCx};
use tidemill_delta::{Delta, NO_WATERMARK, batch, decode, encode, hash_rows, worker_of};

use crate::history::{Bag, Epoch, Row, Value, add};

/// Rows as text, with their multiplicities.
type Changes = BTreeMap<String, i64>;

/// What to run.
pub struct Case<'a> {
    pub make: &'a dyn Fn() -> Box<dyn Operator>,
    /// Per input: the columns by which rows are routed; none: all go to worker 0.
    pub routes: Vec<Vec<usize>>,
    /// Turns an input's rows, as histories have them, into a delta.
    pub delta: &'a dyn Fn(usize, &[(Row, i64)]) -> Delta,
}

/// What happens after an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// What has changed is saved.
    save: bool,
    /// All is saved anew.
    all: bool,
    /// So many new workers begin with what was saved.
    restart: Option<usize>,
    /// Rows are loaded in another order than that in which they were saved.
    reverse: bool,
}

pub fn pauses() -> impl Strategy<Value = Vec<Pause>> {
    let restart = prop_oneof![2 => Just(None), 1 => (1..4usize).prop_map(Some)];
    let pause = (any::<bool>(), prop::bool::weighted(0.3), restart, any::<bool>());
    prop::collection::vec(pause.prop_map(|(save, all, restart, reverse)| Pause { save, all, restart, reverse }), 8)
}

/// Drops changes that come when the watermark has made their time final, then sets rising watermarks.
pub fn in_time(mut epochs: Vec<Epoch>, time: usize, offset: i64, advance: i64) -> Vec<Epoch> {
    let mut before = NO_WATERMARK;
    let mut bag = Bag::new();
    for (i, epoch) in epochs.iter_mut().enumerate() {
        let is_final = |row: &Row| matches!(row[time], Value::Int(t) if t + offset <= before);
        epoch.batches.iter_mut().for_each(|b| b.retain(|(row, _)| !is_final(row)));
        // Without its insertion, dropped before, a retraction must go too.
        let mut kept = bag.clone();
        add(&mut kept, epoch.batches.iter().flatten().cloned());
        let broken: Vec<Row> = kept.iter().filter(|(_, n)| **n < 0).map(|(row, _)| row.clone()).collect();
        epoch.batches.iter_mut().for_each(|b| b.retain(|(row, w)| *w > 0 || !broken.contains(row)));
        add(&mut bag, epoch.batches.iter().flatten().cloned());
        epoch.watermark = i as i64 * advance - 15;
        before = epoch.watermark;
    }
    epochs
}

/// Only what comes.
pub fn without_retractions(mut epochs: Vec<Epoch>) -> Vec<Epoch> {
    epochs.iter_mut().flat_map(|e| &mut e.batches).for_each(|b| b.retain(|(_, weight)| *weight > 0));
    epochs
}

/// What a hub knows of its operators' state, whatever workers there were.
enum Kept {
    Rows(Vec<Vec<Delta>>),
    Entries(Vec<Kind>),
}

/// Entries of one kind by key, in bytes.
struct Kind {
    shape: EntryShape,
    schema: Option<SchemaRef>,
    entries: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

fn converter(schema: &Schema, columns: usize) -> Option<RowConverter> {
    let fields: Vec<_> = schema.fields()[..columns].iter().map(|f| SortField::new(f.data_type().clone())).collect();
    (!fields.is_empty()).then(|| RowConverter::new(fields).expect("sortable"))
}

/// The rows of the leading columns in bytes.
fn bytes_of(rows: &RecordBatch, columns: usize) -> Vec<Vec<u8>> {
    match converter(&rows.schema(), columns) {
        None => vec![Vec::new(); rows.num_rows()],
        Some(converter) => {
            let encoded = converter.convert_columns(&rows.columns()[..columns]).expect("of the same types");
            encoded.iter().map(|row| row.as_ref().to_vec()).collect()
        }
    }
}

/// A delta as it comes back from a disk.
pub fn through_bytes(delta: &Delta) -> Delta {
    let mut bytes = Vec::new();
    encode(delta, &mut bytes).expect("can be written");
    decode(&bytes).expect("can be read")
}

impl Kind {
    fn put(&mut self, entries: Entries) {
        let rows = through_bytes(&Delta::inserts(entries.rows)).rows;
        let gone = through_bytes(&Delta::inserts(entries.gone)).rows;
        assert!(self.schema.as_ref().is_none_or(|schema| *schema == rows.schema()), "the columns are always the same");
        assert_eq!(gone.num_columns(), self.shape.key);
        let keys = bytes_of(&rows, self.shape.key);
        for key in keys.iter().chain(&bytes_of(&gone, self.shape.key)) {
            self.entries.remove(key);
        }
        for (key, row) in keys.into_iter().zip(bytes_of(&rows, rows.num_columns())) {
            self.entries.entry(key).or_default().push(row);
        }
        self.schema = Some(rows.schema());
    }

    fn all(&self) -> Option<Delta> {
        let schema = self.schema.clone()?;
        let rows: Vec<&Vec<u8>> = self.entries.values().flatten().collect();
        let converter = converter(&schema, schema.fields().len()).expect("an entry has columns");
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row))).expect("rows");
        Some(Delta::inserts(batch(schema, columns, rows.len())))
    }
}

/// The rows for each of some workers.
fn split(delta: &Delta, columns: Option<&[usize]>, workers: usize) -> Vec<Delta> {
    let mut hashes = Vec::new();
    let mut lists = vec![Vec::new(); workers];
    match columns {
        None => lists[0] = (0..delta.len() as u32).collect(),
        Some(columns) => {
            hash_rows(&delta.rows, columns, &mut hashes).expect("hashable");
            hashes.iter().enumerate().for_each(|(i, hash)| lists[worker_of(*hash, workers)].push(i as u32));
        }
    }
    let part = |list: Vec<u32>| match delta.rows.num_columns() {
        0 => Delta { rows: delta.rows.slice(0, list.len()), diff: None },
        _ => delta.take(&UInt32Array::from(list)).expect("rows that are there"),
    };
    lists.into_iter().map(part).collect()
}

/// Some workers' operators, fed and restarted as a hub does.
struct Fleet<'a> {
    case: &'a Case<'a>,
    workers: Vec<Box<dyn Operator>>,
    kept: Kept,
    watermark: i64,
}

impl<'a> Fleet<'a> {
    fn new(case: &'a Case<'a>) -> Self {
        let first = (case.make)();
        let kind = |shape| Kind { shape, schema: None, entries: BTreeMap::new() };
        let kept = match first.keeps() {
            Keeps::Entries => Kept::Entries(first.entry_shapes().into_iter().map(kind).collect()),
            _ => Kept::Rows(vec![Vec::new(); case.routes.len()]),
        };
        Fleet { case, workers: vec![first], kept, watermark: NO_WATERMARK }
    }

    fn route(&self, input: usize) -> Option<&[usize]> {
        Some(&self.case.routes[input][..]).filter(|route| !route.is_empty())
    }

    fn step(&mut self, inputs: &[Vec<Delta>], watermark: i64) -> (Changes, Changes) {
        self.watermark = watermark;
        if let Kept::Rows(kept) = &mut self.kept {
            kept.iter_mut().zip(inputs).for_each(|(kept, came)| kept.extend(came.iter().map(through_bytes)));
        }
        let workers = self.workers.len();
        let mut given: Vec<Vec<Vec<Delta>>> = vec![vec![Vec::new(); inputs.len()]; workers];
        for (input, deltas) in inputs.iter().enumerate() {
            for delta in deltas {
                for (worker, part) in split(delta, self.route(input), workers).into_iter().enumerate() {
                    given[worker][input].extend(Some(part).filter(|part| !part.is_empty()));
                }
            }
        }
        let (mut out, mut errors) = (Changes::new(), Vec::new());
        for (i, (worker, inputs)) in self.workers.iter_mut().zip(&mut given).enumerate() {
            if inputs.iter().all(Vec::is_empty) && !worker.due(watermark) && !(i == 0 && worker.wants_start()) {
                continue;
            }
            let mut cx = StepCx { epoch: 0, round: 0, watermark, errors: &mut errors };
            worker.step(&mut cx, inputs).expect("the operator goes on").iter().for_each(|delta| count(delta, &mut out));
        }
        (out, texts(errors))
    }

    fn pause(&mut self, pause: Pause) {
        if pause.save || pause.all || pause.restart.is_some() {
            self.save(pause.all);
        }
        if let Some(workers) = pause.restart {
            self.restart(workers, pause.reverse);
        }
    }

    fn save(&mut self, all: bool) {
        match &mut self.kept {
            Kept::Rows(kept) if all => {
                let rows: Vec<Vec<Delta>> = self.workers.iter().map(|worker| worker.rows().expect("rows")).collect();
                for (input, kept) in kept.iter_mut().enumerate() {
                    *kept = rows.iter().map(|rows| through_bytes(&rows[input])).collect();
                }
            }
            Kept::Rows(_) => {}
            Kept::Entries(kinds) => {
                if all {
                    kinds.iter_mut().for_each(|kind| kind.entries.clear());
                }
                for worker in &mut self.workers {
                    let entries = worker.entries(all).expect("entries");
                    assert_eq!(entries.len(), kinds.len());
                    kinds.iter_mut().zip(entries).for_each(|(kind, entries)| kind.put(entries));
                    let again = worker.entries(false).expect("entries");
                    assert!(again.iter().all(|e| e.rows.num_rows() + e.gone.num_rows() == 0), "nothing has changed");
                }
            }
        }
    }

    fn restart(&mut self, workers: usize, reverse: bool) {
        let mut saved: Vec<Vec<Vec<Delta>>> = Vec::new();
        let routes: Vec<Option<Vec<usize>>> = match &self.kept {
            Kept::Rows(_) => (0..self.case.routes.len()).map(|i| self.route(i).map(<[usize]>::to_vec)).collect(),
            Kept::Entries(kinds) => {
                let place = |kind: &Kind, column: &usize| kind.shape.input_columns.iter().position(|c| c == column);
                let places = |kind: &Kind, columns: &[usize]| -> Vec<usize> {
                    columns.iter().map(|column| place(kind, column).expect("routed by a key")).collect()
                };
                kinds.iter().map(|kind| self.route(0).map(|columns| places(kind, columns))).collect()
            }
        };
        let deltas: Vec<Vec<Delta>> = match &self.kept {
            Kept::Rows(kept) => kept.clone(),
            Kept::Entries(kinds) => kinds.iter().map(|kind| kind.all().into_iter().collect()).collect(),
        };
        for _ in 0..workers {
            saved.push(vec![Vec::new(); deltas.len()]);
        }
        for (kind, (mut deltas, route)) in deltas.into_iter().zip(routes).enumerate() {
            if reverse {
                deltas.reverse();
            }
            for delta in &deltas {
                for (worker, part) in split(delta, route.as_deref(), workers).into_iter().enumerate() {
                    saved[worker][kind].push(part);
                }
            }
        }
        self.workers = (0..workers).map(|_| (self.case.make)()).collect();
        for (worker, saved) in self.workers.iter_mut().zip(&mut saved) {
            let mut cx = StepCx { epoch: 0, round: 0, watermark: self.watermark, errors: &mut Vec::new() };
            worker.load(&mut cx, saved).expect("what was saved can be loaded");
        }
    }
}

/// Adds a delta's rows as text.
fn count(delta: &Delta, out: &mut Changes) {
    for i in 0..delta.len() {
        let value = |column: &arrow::array::ArrayRef| match column.is_null(i) {
            true => "NULL".to_owned(),
            false => array_value_to_string(column, i).expect("displayable"),
        };
        let row: Vec<String> = delta.rows.columns().iter().map(value).collect();
        *out.entry(row.join(" | ")).or_default() += delta.weight(i);
    }
    out.retain(|_, weight| *weight != 0);
}

fn texts(errors: Vec<RowError>) -> Changes {
    let mut out = Changes::new();
    for error in errors {
        *out.entry(format!("{}: {}", error.message, error.row)).or_default() += error.weight;
    }
    out.retain(|_, weight| *weight != 0);
    out
}

/// Runs a history, one list of epochs per input; the first input's watermarks hold.
pub fn run(case: &Case<'_>, histories: &[Vec<Epoch>], pauses: &[Pause]) {
    let (mut through, mut stopping) = (Fleet::new(case), Fleet::new(case));
    let epochs = histories.iter().map(Vec::len).max().unwrap_or(0);
    let mut watermark = NO_WATERMARK;
    for at in 0..epochs {
        let deltas = |(input, history): (usize, &Vec<Epoch>)| -> Vec<Delta> {
            let batches = history.get(at).map_or(&[][..], |epoch| &epoch.batches);
            batches.iter().map(|rows| (case.delta)(input, rows)).collect()
        };
        let inputs: Vec<Vec<Delta>> = histories.iter().enumerate().map(deltas).collect();
        watermark = histories[0].get(at).map_or(watermark, |epoch| epoch.watermark);
        let (wanted, given) = (through.step(&inputs, watermark), stopping.step(&inputs, watermark));
        assert_eq!(given, wanted, "in epoch {at}");
        stopping.pause(pauses[at % pauses.len()]);
    }
    let end = vec![Vec::new(); histories.len()];
    assert_eq!(stopping.step(&end, i64::MAX), through.step(&end, i64::MAX), "when time ends");
}

/// How many rows of each kind are saved, and how many keys are gone.
pub fn sizes(entries: &[Entries]) -> Vec<(usize, usize)> {
    entries.iter().map(|e| (e.rows.num_rows(), e.gone.num_rows())).collect()
}

/// The plain form of [`Case::delta`]: rows of one shape for all inputs.
pub fn plain(schema: &SchemaRef) -> impl Fn(usize, &[(Row, i64)]) -> Delta + use<> {
    let schema = schema.clone();
    move |_, rows| crate::history::delta(&schema, rows)
}
