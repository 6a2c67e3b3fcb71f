//! Rows that come and go one by one, kept as columns.
//!
//! A row's number stays until it is released, wherever its values are moved: `slots` says where they
//! are. Batches are appended as they come, without copying; a batch of which more than half is gone is
//! copied to what is left of it, and small batches are merged once a number of them has piled up, so that each
//! row is copied a logarithmic number of times and no single step moves everything.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_empty_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use tidemill_delta::{Delta, batch};

use crate::ordered_rows::OrderedRows;

/// Batches with fewer rows are merged with their neighbours.
const SMALL: usize = 8192;

/// How many small batches may pile up.
const PILE: usize = 16;

/// Where a released number points.
const NOWHERE: (u32, u32) = (u32::MAX, 0);

/// See the module.
pub(crate) struct KeptRows {
    schema: SchemaRef,
    chunks: Vec<Option<Chunk>>,
    free_chunks: Vec<u32>,
    /// Small chunks, the oldest first.
    small: Vec<u32>,
    /// Chunks of which more than half is gone.
    sparse: Vec<u32>,
    slots: Vec<(u32, u32)>,
    free: Vec<u32>,
}

struct Chunk {
    rows: RecordBatch,
    ids: Vec<u32>,
    live: usize,
    sparse: bool,
}

impl KeptRows {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        KeptRows {
            schema,
            chunks: Vec::new(),
            free_chunks: Vec::new(),
            small: Vec::new(),
            sparse: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes rows in; their numbers.
    pub(crate) fn append(&mut self, rows: RecordBatch) -> Vec<u32> {
        let ids: Vec<u32> = (0..rows.num_rows()).map(|_| self.new_id()).collect();
        if !ids.is_empty() {
            self.add_chunk(rows, ids.clone());
        }
        ids
    }

    /// The batch that holds the row, and the row's place in it.
    #[inline]
    pub(crate) fn row(&self, id: u32) -> (&RecordBatch, usize) {
        let (chunk, at) = self.slots[id as usize];
        (&self.chunk(chunk).rows, at as usize)
    }

    /// Forgets rows.
    ///
    /// # Panics
    /// When a row is not there.
    pub(crate) fn release(&mut self, ids: &[u32]) {
        for id in ids {
            let (number, _) = std::mem::replace(&mut self.slots[*id as usize], NOWHERE);
            let chunk = self.chunks.get_mut(number as usize).and_then(Option::as_mut);
            let chunk = chunk.unwrap_or_else(|| panic!("row {id} released twice"));
            chunk.live -= 1;
            if chunk.live * 2 < chunk.ids.len() && !chunk.sparse {
                chunk.sparse = true;
                self.sparse.push(number);
            }
            self.free.push(*id);
        }
    }

    /// The rows with the numbers given, in that order.
    pub(crate) fn gather(&self, ids: &[u32]) -> Result<RecordBatch, ArrowError> {
        let places: Vec<(u32, u32)> = ids.iter().map(|id| self.slots[*id as usize]).collect();
        self.gather_places(&places)
    }

    /// Some columns of the rows with the numbers given, in that order.
    pub(crate) fn gather_columns(&self, ids: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        let places: Vec<(u32, u32)> = ids.iter().map(|id| self.slots[*id as usize]).collect();
        if places.is_empty() {
            return Ok(columns.iter().map(|c| new_empty_array(self.schema.field(*c).data_type())).collect());
        }
        let (hit, indices) = self.hit(&places);
        columns.iter().map(|c| gather_column(&hit, *c, &places, &indices)).collect()
    }

    /// The rows of some lists, with their multiplicities.
    pub(crate) fn weighted<'a>(&self, lists: impl Iterator<Item = &'a OrderedRows>) -> Result<Delta, ArrowError> {
        let (ids, weights): (Vec<u32>, Vec<i64>) =
            lists.flat_map(OrderedRows::iter).map(|entry| (entry.row, entry.weight)).unzip();
        Ok(Delta::new(self.gather(&ids)?, Int64Array::from(weights)))
    }

    /// Moves rows together where too much is gone or too little is in a batch.
    pub(crate) fn tidy(&mut self) -> Result<(), ArrowError> {
        let moving = self.choose_moving();
        if moving.is_empty() {
            return Ok(());
        }
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for number in &moving {
            for (at, id) in self.chunk(*number).ids.iter().enumerate() {
                // A number that points elsewhere has been released, and maybe given to another row.
                if self.slots[*id as usize] == (*number, at as u32) {
                    ids.push(*id);
                    places.push((*number, at as u32));
                }
            }
        }
        let rows = if ids.is_empty() { None } else { Some(own_buffers(self.gather_places(&places)?)) };
        for number in moving {
            self.chunks[number as usize] = None;
            self.free_chunks.push(number);
        }
        if let Some(rows) = rows {
            self.add_chunk(rows, ids);
        }
        Ok(())
    }

    /// Bytes of memory, estimated.
    pub(crate) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().flatten();
        let rows: usize = chunks.map(|c| c.rows.get_array_memory_size() + c.ids.len() * 4).sum();
        rows + self.slots.capacity() * 8 + self.free.capacity() * 4
    }

    fn chunk(&self, number: u32) -> &Chunk {
        self.chunks[number as usize].as_ref().expect("a row's chunk is there as long as the row")
    }

    fn new_id(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(NOWHERE);
            u32::try_from(self.slots.len() - 1).expect("at most 2^32 rows per operator and worker")
        })
    }

    fn add_chunk(&mut self, rows: RecordBatch, ids: Vec<u32>) {
        let number = self.free_chunks.pop().unwrap_or_else(|| {
            self.chunks.push(None);
            self.chunks.len() as u32 - 1
        });
        for (at, id) in ids.iter().enumerate() {
            self.slots[*id as usize] = (number, at as u32);
        }
        if ids.len() < SMALL {
            self.small.push(number);
        }
        self.chunks[number as usize] = Some(Chunk { rows, live: ids.len(), ids, sparse: false });
    }

    /// The chunks to be copied into one.
    fn choose_moving(&mut self) -> Vec<u32> {
        let mut moving = std::mem::take(&mut self.sparse);
        self.small.retain(|number| !moving.contains(number));
        let live = |number: u32| self.chunks[number as usize].as_ref().map_or(0, |chunk| chunk.live);
        let mut gathered: usize = moving.iter().map(|number| live(*number)).sum();
        if self.small.len() > PILE
            && let Some(last) = self.small.pop()
        {
            gathered += live(last).max(1);
            moving.push(last);
        }
        while gathered > 0
            && let Some(before) = self.small.last().copied()
            && live(before) <= 2 * gathered
        {
            gathered += live(before);
            self.small.pop();
            moving.push(before);
        }
        moving
    }

    /// The rows at (chunk, place).
    fn gather_places(&self, places: &[(u32, u32)]) -> Result<RecordBatch, ArrowError> {
        if places.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let (hit, indices) = self.hit(places);
        let columns = (0..self.schema.fields().len()).map(|c| gather_column(&hit, c, places, &indices));
        Ok(batch(self.schema.clone(), columns.collect::<Result<_, _>>()?, places.len()))
    }

    /// The batches that hold the places, and the places as (one of these batches, row). Only the chunks that
    /// are hit take part: preparing the others would cost more than the rows.
    fn hit(&self, places: &[(u32, u32)]) -> (Vec<&RecordBatch>, Vec<(usize, usize)>) {
        let mut local = vec![u32::MAX; self.chunks.len()];
        let mut hit: Vec<&RecordBatch> = Vec::new();
        let mut indices: Vec<(usize, usize)> = Vec::with_capacity(places.len());
        for (number, at) in places {
            let place = &mut local[*number as usize];
            if *place == u32::MAX {
                *place = hit.len() as u32;
                hit.push(&self.chunk(*number).rows);
            }
            indices.push((*place as usize, *at as usize));
        }
        (hit, indices)
    }
}

fn gather_column(
    hit: &[&RecordBatch],
    column: usize,
    places: &[(u32, u32)],
    indices: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    if let [only] = hit {
        return take(only.column(column), &UInt32Array::from_iter_values(places.iter().map(|(_, at)| *at)), None);
    }
    let arrays: Vec<&dyn Array> = hit.iter().map(|rows| rows.column(column).as_ref()).collect();
    interleave(&arrays, indices)
}

/// The rows without references to buffers of which they use only a part.
fn own_buffers(rows: RecordBatch) -> RecordBatch {
    let own = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => std::sync::Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => std::sync::Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    };
    batch(rows.schema(), rows.columns().iter().map(own).collect(), rows.num_rows())
}
