//! Whatever has no incremental rule: recompute the touched partitions and emit the difference.
//!
//! Input: any number of inputs, any changes; each has columns that say which partition a row belongs to. Rule:
//! for each partition that an epoch touches, the query runs over all of the partition's rows, sorted by
//! content, and the difference to its last answer comes out, sorted by content. A partition without rows has
//! no answer, except the only partition of a query without partition columns, which has one from the
//! start. When the query fails, the partition's answer is empty and the error side says so until the
//! partition changes again.
//!
//! State: all rows of all inputs and the last answer, as sorted multisets of encoded rows. Released
//! when the rows are taken back. Saved: the rows. An answer is computed from them when they are about to change.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use tidemill_delta::{Delta, batch, relaxed};
use tidemill_plan::{Recompute as Query, RecomputePlan};
use tidemill_state::KeyTable;

use crate::map::row_text;
use crate::saved::{all_fitting, wrong};
use crate::{Keeps, Operator, OperatorError, RowError, StateSize, StepCx};

/// Encoded rows and how often each is there, in the order of their content.
type Multiset = BTreeMap<Box<[u8]>, i64>;

/// See the module.
pub struct Recompute {
    keys: Vec<Vec<usize>>,
    query: Arc<dyn Query>,
    label: String,
    inputs: Vec<Codec>,
    output: Codec,
    partitions: KeyTable,
    states: Vec<Partition>,
    /// Whether there are no partition columns, and so exactly one partition.
    single: bool,
    started: bool,
    recomputations: u64,
}

#[derive(Clone, Default)]
struct Partition {
    inputs: Vec<Multiset>,
    output: Multiset,
    error: Option<RowError>,
    touched: bool,
    /// Whether it was loaded and its last answer is not known again yet.
    unanswered: bool,
}

/// Rows of one shape to bytes and back.
struct Codec {
    schema: SchemaRef,
    /// `None`: there are no columns, so all rows are the same.
    converter: Option<RowConverter>,
}

impl Codec {
    fn new(schema: &SchemaRef) -> Result<Self, OperatorError> {
        let schema = relaxed(schema);
        let fields: Vec<_> = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Codec { schema, converter })
    }

    fn encode(&self, rows: &RecordBatch) -> Result<Option<Rows>, OperatorError> {
        Ok(self.converter.as_ref().map(|c| c.convert_columns(rows.columns())).transpose()?)
    }

    /// The rows listed, in that order.
    fn decode<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<RecordBatch, OperatorError> {
        let len = rows.len();
        let columns = match &self.converter {
            None => Vec::new(),
            Some(converter) => {
                let parser = converter.parser();
                tidemill_delta::zero_nulls(converter.convert_rows(rows.map(|bytes| parser.parse(bytes)))?)
            }
        };
        Ok(batch(self.schema.clone(), columns, len))
    }

    /// All rows, each as often as it is there.
    fn decode_all(&self, rows: &Multiset) -> Result<RecordBatch, OperatorError> {
        let repeated = rows.iter().flat_map(|(bytes, count)| std::iter::repeat_n(&**bytes, *count as usize));
        self.decode(repeated.collect::<Vec<_>>().into_iter())
    }
}

/// The bytes of row `i`.
fn bytes_of(rows: &Option<Rows>, i: usize) -> &[u8] {
    rows.as_ref().map_or(&[], |rows| rows.row(i).data())
}

/// Adds to a row's multiplicity.
fn add(set: &mut Multiset, bytes: &[u8], weight: i64) {
    match set.get_mut(bytes) {
        Some(count) if *count + weight == 0 => {
            set.remove(bytes);
        }
        Some(count) => *count += weight,
        None => {
            set.insert(bytes.into(), weight);
        }
    }
}

impl Recompute {
    /// An operator without rows.
    pub fn new(
        plan: &RecomputePlan,
        input_schemas: &[SchemaRef],
        output_schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let types = |input: usize| {
            let schema = &input_schemas[input];
            plan.keys[input].iter().map(|c| schema.field(*c).data_type().clone()).collect::<Vec<_>>()
        };
        let key_types = if input_schemas.is_empty() { Vec::new() } else { types(0) };
        if (0..input_schemas.len()).any(|input| types(input) != key_types) {
            return Err(OperatorError(
                "the inputs of a recomputation have partition columns of different types".into(),
            ));
        }
        Ok(Recompute {
            keys: plan.keys.clone(),
            query: plan.query.clone(),
            label: plan.label.clone(),
            inputs: input_schemas.iter().map(Codec::new).collect::<Result<_, _>>()?,
            output: Codec::new(&output_schema)?,
            single: key_types.is_empty(),
            partitions: KeyTable::new(key_types)?,
            states: Vec::new(),
            started: false,
            recomputations: 0,
        })
    }

    /// Adds a delta to its partitions; new ones in `touched`, in the order of their first rows.
    fn take_in(&mut self, input: usize, delta: &Delta, touched: &mut Vec<u32>) -> Result<(), OperatorError> {
        let columns: Vec<ArrayRef> = self.keys[input].iter().map(|c| delta.rows.column(*c).clone()).collect();
        let mut ids = Vec::with_capacity(delta.len());
        self.partitions.intern(&columns, delta.len(), &mut ids, |_| ())?;
        self.make_room();
        self.remember_answers(&ids)?;
        let rows = self.inputs[input].encode(&delta.rows)?;
        for (i, id) in ids.iter().enumerate() {
            let state = &mut self.states[*id as usize];
            add(&mut state.inputs[input], bytes_of(&rows, i), delta.weight(i));
            if !std::mem::replace(&mut state.touched, true) {
                touched.push(*id);
            }
        }
        Ok(())
    }

    /// Computes the answers of partitions that were loaded, as they came out before.
    fn remember_answers(&mut self, ids: &[u32]) -> Result<(), OperatorError> {
        for id in ids {
            if std::mem::take(&mut self.states[*id as usize].unanswered) {
                let answer = self.answer(*id)?;
                let state = &mut self.states[*id as usize];
                match answer {
                    Ok(rows) => state.output = rows,
                    Err(error) => state.error = Some(error),
                }
            }
        }
        Ok(())
    }

    fn make_room(&mut self) {
        let inputs = vec![Multiset::new(); self.inputs.len()];
        let empty = Partition { inputs, ..Partition::default() };
        self.states.resize(self.partitions.capacity(), empty);
    }

    /// The only partition of a query without partition columns is there before any row.
    fn start(&mut self, touched: &mut Vec<u32>) -> Result<(), OperatorError> {
        if self.single && !self.started {
            let mut ids = Vec::new();
            self.partitions.intern(&[], 1, &mut ids, |_| ())?;
            self.make_room();
            self.states[ids[0] as usize].touched = true;
            touched.extend(ids);
        }
        self.started = true;
        Ok(())
    }

    /// The partition's answer as of now, or the error that stands for it.
    fn answer(&mut self, id: u32) -> Result<Result<Multiset, RowError>, OperatorError> {
        let state = &self.states[id as usize];
        let sound = state.inputs.iter().all(|set| set.values().all(|count| *count > 0));
        assert!(sound, "a row was taken back that was not there");
        if !self.single && state.inputs.iter().all(Multiset::is_empty) {
            return Ok(Ok(Multiset::new()));
        }
        let inputs = self.inputs.iter().zip(&state.inputs).map(|(codec, set)| codec.decode_all(set));
        let inputs: Vec<RecordBatch> = inputs.collect::<Result<_, _>>()?;
        self.recomputations += 1;
        match self.query.compute(&inputs) {
            Ok(rows) => self.collect(rows).map(Ok),
            Err(error) => {
                let row = inputs.iter().find(|rows| rows.num_rows() > 0).map(|rows| row_text(rows, 0));
                Ok(Err(RowError { message: error.message, row: row.unwrap_or_default(), weight: 1 }))
            }
        }
    }

    fn collect(&self, rows: RecordBatch) -> Result<Multiset, OperatorError> {
        let types = |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        if types(&rows.schema()) != types(&self.output.schema) {
            return Err(OperatorError(format!("{} gave other columns than planned", self.label)));
        }
        let encoded = self.output.encode(&rows)?;
        let mut set = Multiset::new();
        (0..rows.num_rows()).for_each(|i| add(&mut set, bytes_of(&encoded, i), 1));
        Ok(set)
    }

    /// Recomputes one partition and appends what changed.
    fn recompute(
        &mut self,
        id: u32,
        cx: &mut StepCx<'_>,
        out: &mut Vec<(Box<[u8]>, i64)>,
    ) -> Result<(), OperatorError> {
        let (new, error) = match self.answer(id)? {
            Ok(rows) => (rows, None),
            Err(error) => (Multiset::new(), Some(error)),
        };
        let state = &mut self.states[id as usize];
        state.touched = false;
        difference(&state.output, &new, out);
        state.output = new;
        if state.error != error {
            cx.errors.extend(state.error.take().map(|old| RowError { weight: -1, ..old }));
            cx.errors.extend(error.clone());
            state.error = error;
        }
        if !self.single && state.inputs.iter().all(Multiset::is_empty) {
            self.partitions.release(id);
        }
        Ok(())
    }
}

/// Appends what to add to `old` to get `new`: a merge of two sorted lists.
fn difference(old: &Multiset, new: &Multiset, out: &mut Vec<(Box<[u8]>, i64)>) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let ordering = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return,
        };
        let gone = old.next_if(|_| ordering.is_le());
        let come = new.next_if(|_| ordering.is_ge());
        let weight = come.map_or(0, |(_, n)| *n) - gone.map_or(0, |(_, n)| *n);
        if let Some((bytes, _)) = come.or(gone)
            && weight != 0
        {
            out.push((bytes.clone(), weight));
        }
    }
}

impl Operator for Recompute {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let mut touched = Vec::new();
        self.start(&mut touched)?;
        for (input, deltas) in inputs.iter_mut().enumerate() {
            for delta in deltas.drain(..) {
                self.take_in(input, &delta, &mut touched)?;
            }
        }
        let mut changes = Vec::new();
        for id in touched {
            self.recompute(id, cx, &mut changes)?;
        }
        net(&mut changes);
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.output.decode(changes.iter().map(|(bytes, _)| &**bytes))?;
        Ok(vec![Delta::new(rows, changes.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into())])
    }

    fn wants_start(&self) -> bool {
        self.single
    }

    fn keeps(&self) -> Keeps {
        Keeps::Rows
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        let rows = |(input, codec): (usize, &Codec)| {
            let listed: Vec<_> = self.states.iter().flat_map(|state| state.inputs[input].iter()).collect();
            let rows = codec.decode(listed.iter().map(|(bytes, _)| &***bytes))?;
            Ok(Delta::new(rows, listed.iter().map(|(_, count)| **count).collect::<Vec<_>>().into()))
        };
        self.inputs.iter().enumerate().map(rows).collect()
    }

    fn load(&mut self, _cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let mut touched = Vec::new();
        self.start(&mut touched)?;
        for (input, deltas) in saved.iter_mut().enumerate() {
            let schema =
                self.inputs.get(input).ok_or_else(|| wrong("there are more inputs than planned"))?.schema.clone();
            for delta in all_fitting(&schema, deltas)? {
                self.take_in(input, &delta, &mut touched)?;
            }
        }
        for id in touched {
            let state = &mut self.states[id as usize];
            state.touched = false;
            if state.inputs.iter().any(|rows| rows.values().any(|count| *count < 0)) {
                return Err(wrong("a row is taken back that is not there"));
            }
            // The only partition has an answer without rows too.
            if self.single || state.inputs.iter().any(|rows| !rows.is_empty()) {
                state.unanswered = true;
            } else {
                self.partitions.release(id);
            }
        }
        Ok(())
    }

    fn recomputations(&self) -> u64 {
        self.recomputations
    }

    fn state(&self) -> StateSize {
        let sets = self.states.iter().flat_map(|s| s.inputs.iter().chain([&s.output]));
        let (rows, bytes) = sets.flatten().fold((0, 0), |(rows, bytes), (row, _)| (rows + 1, bytes + row.len() + 40));
        StateSize { rows, bytes: bytes + self.partitions.bytes() + self.states.capacity() * size_of::<Partition>() }
    }
}

/// Partitions may give the same row; together their changes list it once.
fn net(changes: &mut Vec<(Box<[u8]>, i64)>) {
    changes.sort();
    changes.dedup_by(|next, first| {
        let same = next.0 == first.0;
        if same {
            first.1 += next.1;
        }
        same
    });
    changes.retain(|(_, weight)| *weight != 0);
}
