//! Keys interned as dense numbers.
//!
//! Keys of fixed-width columns are packed: into a `u128` if they fit 16 bytes together, else into four
//! `u64` if they are four columns at most (a key, a window's start and its end are three). All others
//! are held in arrow's comparable row format. NULL is a value like any other: two NULLs are one key.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use tidemill_delta::{hash_bytes, one_zero, zero_nulls};

use crate::Long;

/// What [`KeyTable::lookup`] gives for a key that is not there.
pub const NO_KEY: u32 = u32::MAX;

/// A map from keys to dense numbers; numbers of released keys are used again.
pub struct KeyTable {
    types: Vec<DataType>,
    keys: Keys,
    table: HashTable<u32>,
    free: Vec<u32>,
}

enum Keys {
    /// Columns packed from the low end of the number.
    Narrow(PackedKeys<u128>),
    /// A column in each number.
    Wide(PackedKeys<[u64; 4]>),
    /// arrow's row format.
    Rows { converter: RowConverter, rows: Vec<Box<[u8]>>, hashes: Vec<u64> },
}

/// Keys of fixed-width columns. A bit per column tells NULLs, whose values are zero.
struct PackedKeys<P> {
    values: Long<P>,
    /// Empty until a key has a NULL: most never have, and each look at it may miss the cache.
    nulls: Vec<u8>,
    /// Bits per column.
    widths: Vec<u32>,
}

/// A few numbers in one value.
trait Pack: Copy + Eq + Default {
    /// Puts a column's bits in; `i` is the column's number, `shift` the bits of the columns before it.
    fn put(&mut self, i: usize, shift: u32, bits: u64);
    /// Takes a column's bits out; higher bits may hold other columns.
    fn get(&self, i: usize, shift: u32) -> u64;
    /// A hash of all columns.
    fn hash(&self, nulls: u8) -> u64;
}

impl Pack for u128 {
    #[inline]
    fn put(&mut self, _i: usize, shift: u32, bits: u64) {
        *self |= u128::from(bits) << shift;
    }

    #[inline]
    fn get(&self, _i: usize, shift: u32) -> u64 {
        (*self >> shift) as u64
    }

    #[inline]
    fn hash(&self, nulls: u8) -> u64 {
        scramble((*self as u64) ^ ((*self >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(nulls))
    }
}

impl Pack for [u64; 4] {
    #[inline]
    fn put(&mut self, i: usize, _shift: u32, bits: u64) {
        self[i] = bits;
    }

    #[inline]
    fn get(&self, i: usize, _shift: u32) -> u64 {
        self[i]
    }

    #[inline]
    fn hash(&self, nulls: u8) -> u64 {
        let low = scramble(self[0] ^ self[1].rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(nulls));
        scramble(low ^ self[2].rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ self[3].rotate_left(47))
    }
}

/// Bits of a packed column, or `None` if the type cannot be packed.
///
/// Floats are left out because -0.0 and 0.0 differ in their bits.
fn packed_width(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Boolean => Some(8),
        DataType::Int8 | DataType::UInt8 => Some(8),
        DataType::Int16 | DataType::UInt16 => Some(16),
        DataType::Int32 | DataType::UInt32 | DataType::Date32 | DataType::Time32(_) => Some(32),
        DataType::Int64 | DataType::UInt64 | DataType::Date64 | DataType::Time64(_) => Some(64),
        DataType::Timestamp(_, _) | DataType::Duration(_) => Some(64),
        _ => None,
    }
}

/// Mixes the bits of a number. Not frozen: only tables in memory use it.
#[inline]
fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z ^ (z >> 32)
}

impl KeyTable {
    /// An empty table for keys of the types given; none at all is allowed: then there is one key.
    pub fn new(types: Vec<DataType>) -> Result<Self, ArrowError> {
        let widths: Option<Vec<u32>> = types.iter().map(packed_width).collect();
        let keys = match widths {
            Some(widths) if widths.iter().sum::<u32>() <= 128 && widths.len() <= 8 => {
                Keys::Narrow(PackedKeys { values: Long::new(), nulls: Vec::new(), widths })
            }
            Some(widths) if widths.len() <= 4 => {
                Keys::Wide(PackedKeys { values: Long::new(), nulls: Vec::new(), widths })
            }
            _ => {
                let fields = types.iter().map(|t| SortField::new(t.clone())).collect();
                Keys::Rows { converter: RowConverter::new(fields)?, rows: Vec::new(), hashes: Vec::new() }
            }
        };
        Ok(KeyTable { types, keys, table: HashTable::new(), free: Vec::new() })
    }

    /// The types of the keys' columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// One more than the greatest number handed out so far; what arrays indexed by number need.
    pub fn capacity(&self) -> usize {
        match &self.keys {
            Keys::Narrow(keys) => keys.values.len(),
            Keys::Wide(keys) => keys.values.len(),
            Keys::Rows { rows, .. } => rows.len(),
        }
    }

    /// Makes room for this many keys, which saves growing step by step.
    pub fn reserve(&mut self, more: usize) {
        match &mut self.keys {
            Keys::Narrow(keys) => keys.reserve(&mut self.table, more),
            Keys::Wide(keys) => keys.reserve(&mut self.table, more),
            Keys::Rows { hashes, .. } => self.table.reserve(more, |id| hashes[*id as usize]),
        }
    }

    /// The number of each row's key; new keys get one, and are reported to `added` in order.
    pub fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        ids: &mut Vec<u32>,
        mut added: impl FnMut(u32),
    ) -> Result<(), ArrowError> {
        ids.clear();
        ids.reserve(rows);
        let KeyTable { keys, table, free, .. } = self;
        match keys {
            Keys::Narrow(keys) => keys.intern(columns, rows, (table, free), ids, &mut added),
            Keys::Wide(keys) => keys.intern(columns, rows, (table, free), ids, &mut added),
            Keys::Rows { converter, .. } => {
                let encoded = converter.convert_columns(&one_zeros(columns))?;
                for row in encoded.iter() {
                    ids.push(self.intern_row(row.as_ref(), &mut added));
                }
                Ok(())
            }
        }
    }

    /// The number of each row's key, or [`NO_KEY`].
    pub fn lookup(&self, columns: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<(), ArrowError> {
        ids.clear();
        ids.reserve(rows);
        if self.table.is_empty() {
            ids.resize(rows, NO_KEY);
            return Ok(());
        }
        match &self.keys {
            Keys::Narrow(keys) => keys.lookup(columns, rows, &self.table, ids),
            Keys::Wide(keys) => keys.lookup(columns, rows, &self.table, ids),
            Keys::Rows { converter, rows: own, .. } => {
                for row in converter.convert_columns(&one_zeros(columns))?.iter() {
                    let bytes = row.as_ref();
                    let found = self.table.find(hash_bytes(bytes), |id| &*own[*id as usize] == bytes);
                    ids.push(found.copied().unwrap_or(NO_KEY));
                }
                Ok(())
            }
        }
    }

    /// Forgets a key; its number may be given to another one.
    ///
    /// # Panics
    /// When the key is not there.
    pub fn release(&mut self, id: u32) {
        let hash = self.hash_of(id);
        let entry = self.table.find_entry(hash, |other| *other == id);
        entry.unwrap_or_else(|_| panic!("key {id} released twice")).remove();
        if let Keys::Rows { rows, .. } = &mut self.keys {
            rows[id as usize] = Box::default();
        }
        self.free.push(id);
    }

    /// Whether a number that was handed out stands for a key, which it does until the key is released.
    pub fn contains(&self, id: u32) -> bool {
        self.table.find(self.hash_of(id), |other| *other == id).is_some()
    }

    fn hash_of(&self, id: u32) -> u64 {
        match &self.keys {
            Keys::Narrow(keys) => keys.hash_of(id),
            Keys::Wide(keys) => keys.hash_of(id),
            Keys::Rows { hashes, .. } => hashes[id as usize],
        }
    }

    /// The key columns of the numbers given.
    pub fn columns(&self, ids: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        match &self.keys {
            Keys::Rows { converter, rows, .. } => {
                let parser = converter.parser();
                Ok(zero_nulls(converter.convert_rows(ids.iter().map(|id| parser.parse(&rows[*id as usize])))?))
            }
            Keys::Narrow(keys) => keys.columns(ids, &self.types),
            Keys::Wide(keys) => keys.columns(ids, &self.types),
        }
    }

    /// Bytes of memory, estimated.
    pub fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Narrow(keys) => keys.values.bytes() + keys.nulls.capacity(),
            Keys::Wide(keys) => keys.values.bytes() + keys.nulls.capacity(),
            Keys::Rows { rows, hashes, .. } => {
                // Sampled: walking millions of keys for an estimate would cost more than it tells.
                let sample = rows.len().min(64);
                let bytes: usize = rows.iter().take(sample).map(|r| r.len()).sum();
                rows.capacity() * 16 + hashes.capacity() * 8 + rows.len() * bytes / sample.max(1)
            }
        };
        keys + self.table.capacity() * 5
    }

    fn intern_row(&mut self, bytes: &[u8], added: &mut impl FnMut(u32)) -> u32 {
        let Keys::Rows { rows, hashes, .. } = &mut self.keys else { unreachable!("row table") };
        let hash = hash_bytes(bytes);
        if let Some(id) = self.table.find(hash, |id| &*rows[*id as usize] == bytes) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            rows.push(Box::default());
            hashes.push(0);
            u32::try_from(rows.len() - 1).expect("at most 2^32 keys per operator and worker")
        });
        rows[id as usize] = bytes.into();
        hashes[id as usize] = hash;
        self.table.insert_unique(hash, id, |id| hashes[*id as usize]);
        added(id);
        id
    }
}

/// Equal keys with equal bits.
fn one_zeros(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    columns.iter().map(one_zero).collect()
}

/// Where keys are found: the table, and the numbers free to use.
type Places<'a> = (&'a mut HashTable<u32>, &'a mut Vec<u32>);

impl<P: Pack> PackedKeys<P> {
    fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<(Vec<P>, Vec<u8>), ArrowError> {
        let mut values = vec![P::default(); rows];
        let mut nulls = Vec::new();
        let mut shift = 0;
        for (i, (column, width)) in columns.iter().zip(&self.widths).enumerate() {
            if let Some(validity) = column.nulls().filter(|n| n.null_count() > 0) {
                nulls.resize(rows, 0);
                (0..rows).filter(|r| validity.is_null(*r)).for_each(|r| nulls[r] |= 1 << i);
            }
            let at = (i, shift);
            match (column.data_type(), width) {
                (DataType::Boolean, _) => {
                    let array = column.as_boolean();
                    let put = |(r, value): (usize, &mut P)| value.put(i, shift, u64::from(array.value(r)));
                    values.iter_mut().enumerate().filter(|(r, _)| array.is_valid(*r)).for_each(put);
                }
                (_, 8) => pack::<Int8Type, P>(column, &mut values, at, |v| u64::from(v as u8))?,
                (_, 16) => pack::<Int16Type, P>(column, &mut values, at, |v| u64::from(v as u16))?,
                (_, 32) => pack::<Int32Type, P>(column, &mut values, at, |v| u64::from(v as u32))?,
                _ => pack::<Int64Type, P>(column, &mut values, at, |v| v as u64)?,
            }
            shift += width;
        }
        Ok((values, nulls))
    }

    fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        places: Places<'_>,
        ids: &mut Vec<u32>,
        added: &mut impl FnMut(u32),
    ) -> Result<(), ArrowError> {
        let (table, free) = places;
        let (values, nulls) = self.encode(columns, rows)?;
        let mut last = (P::default(), 0u8, NO_KEY);
        for (i, value) in values.into_iter().enumerate() {
            let null = nulls.get(i).copied().unwrap_or(0);
            // Runs of equal keys are common (windows, hot keys).
            if last.2 != NO_KEY && last.0 == value && last.1 == null {
                ids.push(last.2);
                continue;
            }
            let hash = value.hash(null);
            let id = match table.find(hash, |id| self.is(*id, value, null)) {
                Some(id) => *id,
                None => {
                    let id = self.add(value, null, free);
                    table.insert_unique(hash, id, |id| self.hash_of(*id));
                    added(id);
                    id
                }
            };
            last = (value, null, id);
            ids.push(id);
        }
        Ok(())
    }

    #[inline]
    fn is(&self, id: u32, value: P, null: u8) -> bool {
        self.values[id as usize] == value && self.nulls_of(id) == null
    }

    #[inline]
    fn nulls_of(&self, id: u32) -> u8 {
        if self.nulls.is_empty() { 0 } else { self.nulls[id as usize] }
    }

    #[inline]
    fn hash_of(&self, id: u32) -> u64 {
        self.values[id as usize].hash(self.nulls_of(id))
    }

    fn reserve(&mut self, table: &mut HashTable<u32>, more: usize) {
        table.reserve(more, |id| self.hash_of(*id));
    }

    fn add(&mut self, value: P, null: u8, free: &mut Vec<u32>) -> u32 {
        let id = free.pop().unwrap_or_else(|| {
            self.values.push(P::default());
            u32::try_from(self.values.len() - 1).expect("at most 2^32 keys per operator and worker")
        });
        self.values[id as usize] = value;
        if null != 0 || !self.nulls.is_empty() {
            self.nulls.resize(self.values.len(), 0);
            self.nulls[id as usize] = null;
        }
        id
    }

    fn lookup(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        table: &HashTable<u32>,
        ids: &mut Vec<u32>,
    ) -> Result<(), ArrowError> {
        let (values, nulls) = self.encode(columns, rows)?;
        for (i, value) in values.into_iter().enumerate() {
            let null = nulls.get(i).copied().unwrap_or(0);
            ids.push(table.find(value.hash(null), |id| self.is(*id, value, null)).copied().unwrap_or(NO_KEY));
        }
        Ok(())
    }

    fn columns(&self, ids: &[u32], types: &[DataType]) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut shift = 0;
        let mut columns = Vec::with_capacity(self.widths.len());
        for (i, (data_type, width)) in types.iter().zip(&self.widths).enumerate() {
            let nulls = unpack_nulls(ids, &self.nulls, i);
            let at = |id: &u32| self.values[*id as usize].get(i, shift);
            columns.push(match (data_type, width) {
                (DataType::Boolean, _) => {
                    std::sync::Arc::new(BooleanArray::new(ids.iter().map(|id| at(id) & 1 == 1).collect(), nulls))
                }
                (_, 8) => unpack::<Int8Type>(data_type, ids.iter().map(|id| at(id) as i8), nulls)?,
                (_, 16) => unpack::<Int16Type>(data_type, ids.iter().map(|id| at(id) as i16), nulls)?,
                (_, 32) => unpack::<Int32Type>(data_type, ids.iter().map(|id| at(id) as i32), nulls)?,
                _ => unpack::<Int64Type>(data_type, ids.iter().map(|id| at(id) as i64), nulls)?,
            });
            shift += width;
        }
        Ok(columns)
    }
}

/// The same bits as an array of plain integers.
fn reinterpret(column: &ArrayRef, data_type: DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == &data_type {
        return Ok(column.clone());
    }
    Ok(make_array(column.to_data().into_builder().data_type(data_type).build()?))
}

fn pack<T: ArrowPrimitiveType, P: Pack>(
    column: &ArrayRef,
    values: &mut [P],
    (i, shift): (usize, u32),
    bits: impl Fn(T::Native) -> u64,
) -> Result<(), ArrowError> {
    let plain = reinterpret(column, T::DATA_TYPE)?;
    let plain = plain.as_primitive::<T>();
    if plain.null_count() == 0 {
        values.iter_mut().zip(plain.values()).for_each(|(value, own)| value.put(i, shift, bits(*own)));
    } else {
        // What stands in a NULL's place is anybody's guess; a key has zero there.
        let valid = values.iter_mut().enumerate().filter(|(r, _)| plain.is_valid(*r));
        valid.for_each(|(r, value)| value.put(i, shift, bits(plain.value(r))));
    }
    Ok(())
}

fn unpack_nulls(ids: &[u32], nulls: &[u8], column: usize) -> Option<NullBuffer> {
    let bit = 1u8 << column;
    if nulls.is_empty() {
        return None;
    }
    ids.iter()
        .any(|id| nulls[*id as usize] & bit != 0)
        .then(|| ids.iter().map(|id| nulls[*id as usize] & bit == 0).collect())
}

fn unpack<T: ArrowPrimitiveType>(
    data_type: &DataType,
    values: impl Iterator<Item = T::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let plain: ArrayRef = std::sync::Arc::new(PrimitiveArray::<T>::new(values.collect(), nulls));
    reinterpret(&plain, data_type.clone())
}

#[cfg(test)]
mod tests;
