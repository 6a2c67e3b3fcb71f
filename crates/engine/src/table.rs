//! A table's keys: which row stands under which primary key.

use std::collections::{HashMap, HashSet};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use tidemill_delta::{Delta, Epoch, batch};
use tidemill_sql::{OnConflict, Relation, SqlError, state};

/// The rows of a table with a primary key, by key.
pub(crate) struct PrimaryKey {
    name: String,
    columns: Vec<usize>,
    schema: SchemaRef,
    keys: RowConverter,
    rows: RowConverter,
    /// Only looked up by key, never walked.
    by_key: HashMap<Box<[u8]>, Box<[u8]>>,
}

/// One statement's effect on a table.
#[derive(Debug)]
pub(crate) struct TableChange {
    pub(crate) removed: Vec<RecordBatch>,
    pub(crate) added: Vec<RecordBatch>,
    pub(crate) on_conflict: OnConflict,
    /// The epoch as of which `removed` was there; of no matter if nothing is.
    pub(crate) seen: Epoch,
}

impl TableChange {
    pub(crate) fn removes(&self) -> bool {
        self.removed.iter().any(|rows| rows.num_rows() > 0)
    }

    /// The change as a delta, for a table without a key.
    pub(crate) fn delta(&self, schema: &SchemaRef) -> Result<Delta, SqlError> {
        let removed = self.removed.iter().map(|rows| Delta::inserts(rows.clone()).negate());
        let added = self.added.iter().map(|rows| Delta::inserts(rows.clone()));
        let parts: Vec<Delta> = removed.chain(added).filter(|d| !d.is_empty()).collect();
        Delta::concat(schema, &parts).map_err(internal)
    }
}

/// The error of a change whose rows are not there any more.
pub(crate) fn changed_meanwhile(table: &str) -> SqlError {
    let message = format!("a row of \"{table}\" was changed by another statement meanwhile");
    SqlError::new("40001", message).hint("Run the statement again.")
}

fn internal(error: arrow::error::ArrowError) -> SqlError {
    SqlError::internal(error.to_string())
}

impl PrimaryKey {
    pub(crate) fn new(table: &Relation) -> Result<Option<Self>, SqlError> {
        if table.primary_key.is_empty() {
            return Ok(None);
        }
        let field = |c: &usize| SortField::new(table.schema.field(*c).data_type().clone());
        let all: Vec<usize> = (0..table.schema.fields().len()).collect();
        Ok(Some(PrimaryKey {
            name: table.name.clone(),
            columns: table.primary_key.clone(),
            schema: table.schema.clone(),
            keys: RowConverter::new(table.primary_key.iter().map(field).collect()).map_err(internal)?,
            rows: RowConverter::new(all.iter().map(field).collect()).map_err(internal)?,
            by_key: HashMap::new(),
        }))
    }

    /// Follows a change that was made before, and went well then.
    pub(crate) fn follow(&mut self, delta: &Delta) -> Result<(), SqlError> {
        let rows = |sign: i64| -> Result<Vec<RecordBatch>, SqlError> {
            let list = (0..delta.len() as u32).filter(|i| delta.weight(*i as usize).signum() == sign);
            let list = arrow::array::UInt32Array::from_iter_values(list);
            Ok(vec![arrow::compute::take_record_batch(&delta.rows, &list).map_err(internal)?])
        };
        self.apply(&TableChange { removed: rows(-1)?, added: rows(1)?, on_conflict: OnConflict::Error, seen: 0 })?;
        Ok(())
    }

    /// Applies a change to the keys and gives it as a delta; changes nothing when it fails.
    pub(crate) fn apply(&mut self, change: &TableChange) -> Result<Delta, SqlError> {
        // What each touched key stood for before, to undo a change that fails half-way.
        let mut undo: Vec<(Box<[u8]>, Option<Box<[u8]>>)> = Vec::new();
        match self.try_apply(change, &mut undo) {
            Ok(delta) => Ok(delta),
            Err(error) => {
                for (key, row) in undo.into_iter().rev() {
                    match row {
                        Some(row) => self.by_key.insert(key, row),
                        None => self.by_key.remove(&key),
                    };
                }
                Err(error)
            }
        }
    }

    fn try_apply(
        &mut self,
        change: &TableChange,
        undo: &mut Vec<(Box<[u8]>, Option<Box<[u8]>>)>,
    ) -> Result<Delta, SqlError> {
        let mut gone: Vec<Box<[u8]>> = Vec::new();
        let mut come: Vec<RecordBatch> = Vec::new();
        for rows in &change.removed {
            let (keys, contents) = self.encode(rows)?;
            for i in 0..rows.num_rows() {
                let key = keys.row(i);
                let stored = self.by_key.remove(key.as_ref());
                let same = stored.as_deref() == Some(contents.row(i).as_ref());
                undo.push((key.as_ref().into(), stored));
                if !same {
                    return Err(changed_meanwhile(&self.name));
                }
                gone.push(contents.row(i).as_ref().into());
            }
        }
        for rows in &change.added {
            let (keys, contents) = self.encode(rows)?;
            let mut kept: Vec<u32> = Vec::with_capacity(rows.num_rows());
            for i in 0..rows.num_rows() {
                let key: Box<[u8]> = keys.row(i).as_ref().into();
                match (self.by_key.get(&key), change.on_conflict) {
                    (None, _) => {}
                    (Some(_), OnConflict::Nothing) => continue,
                    (Some(old), OnConflict::Replace) => gone.push(old.clone()),
                    (Some(_), OnConflict::Error) => return Err(self.duplicate(rows, i)),
                }
                kept.push(i as u32);
                let before = self.by_key.insert(key.clone(), contents.row(i).as_ref().into());
                undo.push((key, before));
            }
            let indices = arrow::array::UInt32Array::from(kept);
            come.push(arrow::compute::take_record_batch(rows, &indices).map_err(internal)?);
        }
        self.delta(&gone, &come)
    }

    /// Which rows have keys that are free; of several with one key, the first.
    pub(crate) fn fresh(&self, rows: &RecordBatch) -> Result<BooleanArray, SqlError> {
        let (keys, _) = self.encode(rows)?;
        let keys: Vec<_> = keys.iter().map(|key| key.owned()).collect();
        let mut new: HashSet<&[u8]> = HashSet::new();
        Ok(keys.iter().map(|key| Some(!self.by_key.contains_key(key.as_ref()) && new.insert(key.as_ref()))).collect())
    }

    /// Which rows are there, exactly so.
    pub(crate) fn holds(&self, rows: &RecordBatch) -> Result<BooleanArray, SqlError> {
        let (keys, contents) = self.encode(rows)?;
        let stored = keys.iter().map(|key| self.by_key.get(key.as_ref()).map(|row| &**row));
        Ok(stored.zip(contents.iter()).map(|(stored, row)| Some(stored == Some(row.as_ref()))).collect())
    }

    fn encode(&self, rows: &RecordBatch) -> Result<(arrow::row::Rows, arrow::row::Rows), SqlError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|c| rows.column(*c).clone()).collect();
        let keys = self.keys.convert_columns(&columns).map_err(internal)?;
        let contents = self.rows.convert_columns(rows.columns()).map_err(internal)?;
        Ok((keys, contents))
    }

    fn delta(&self, gone: &[Box<[u8]>], come: &[RecordBatch]) -> Result<Delta, SqlError> {
        let parser = self.rows.parser();
        let columns = self.rows.convert_rows(gone.iter().map(|row| parser.parse(row))).map_err(internal)?;
        let removed = batch(self.schema.clone(), tidemill_delta::zero_nulls(columns), gone.len());
        let rows = concat_batches(&self.schema, std::iter::once(&removed).chain(come)).map_err(internal)?;
        let diff = (0..rows.num_rows()).map(|i| if i < gone.len() { -1 } else { 1 });
        let delta = Delta::new(rows, Int64Array::from_iter_values(diff));
        // A key replaced twice in one statement leaves a row that came and went.
        tidemill_delta::consolidate(&self.schema, &[delta]).map_err(internal)
    }

    fn duplicate(&self, rows: &RecordBatch, row: usize) -> SqlError {
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let text = |c: &usize| {
            arrow::util::display::ArrayFormatter::try_new(rows.column(*c).as_ref(), &options)
                .map_or_else(|e| e.to_string(), |f| f.value(row).to_string())
        };
        let names: Vec<_> = self.columns.iter().map(|c| self.schema.field(*c).name().as_str()).collect();
        let values: Vec<_> = self.columns.iter().map(text).collect();
        let message = format!("duplicate key value violates the primary key of \"{}\"", self.name);
        let detail = format!("Key ({})=({}) already exists.", names.join(", "), values.join(", "));
        SqlError::new(state::UNIQUE_VIOLATION, message).detail(detail)
    }
}
